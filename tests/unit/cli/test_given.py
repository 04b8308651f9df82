"""Parameters of workflows as options: told apart from the command's own, and read by their types."""

from typing import Any

import pytest

from comfy_api_service.cli.client.given import Given, divided, explicit, inputs_from
from comfy_api_service.cli.faults import Fault

OWN = {"--output", "-o", "--wait", "--no-wait", "--version"}
PARAMETERS: list[dict[str, Any]] = [
    {"name": "prompt", "type": "string", "required": True, "default": None, "description": "What to show."},
    {"name": "negative_prompt", "type": "string", "default": ""},
    {"name": "steps", "type": "integer", "default": 20},
    {"name": "cfg", "type": "number", "default": 7.0},
    {"name": "seed", "type": "seed", "default": None},
    {"name": "tiled", "type": "boolean", "default": False},
    {"name": "model", "type": "model", "default": None},
    {"name": "version", "type": "string", "default": "a"},
]


@pytest.mark.parametrize(
    ("words", "own", "given"),
    [
        (["id", "--prompt", "a b", "-o", "x.png"], ["id", "-o", "x.png"], [("prompt", "a b")]),
        (["--prompt", "x", "id"], ["id"], [("prompt", "x")]),
        (["id", "--seed", "-1", "--cfg=-0.5"], ["id"], [("seed", "-1"), ("cfg", "-0.5")]),
        (["id", "--prompt", "-o is fine"], ["id"], [("prompt", "-o is fine")]),
        (["id", "--tiled", "-o", "x"], ["id", "-o", "x"], [("tiled", None)]),
        (["id", "--tiled", "--no-wait"], ["id", "--no-wait"], [("tiled", None)]),
        (["id", "--prompt=--x", "--output=y"], ["id", "--output=y"], [("prompt", "--x")]),
        (["id", "--prompt=a=b", "--prompt="], ["id"], [("prompt", "a=b"), ("prompt", "")]),
        (["--", "id", "--prompt"], ["--", "id", "--prompt"], []),
    ],
)
def test_options_are_told_apart(
    words: list[str], own: list[str], given: list[tuple[str, str | None]]
) -> None:
    assert divided(words, OWN) == (own, [Given(*one) for one in given])


def values(*given: tuple[str, str | None]) -> dict[str, Any]:
    return inputs_from(PARAMETERS, [Given("prompt", "x"), *(Given(*one) for one in given)], "wfl_1", OWN)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (("steps", "30"), {"steps": 30}),
        (("cfg", "6"), {"cfg": 6.0}),
        (("seed", "18446744073709551615"), {"seed": 2**64 - 1}),
        (("seed", "-1"), {"seed": -1}),
        (("tiled", None), {"tiled": True}),
        (("no-tiled", None), {"tiled": False}),
        (("tiled", "No"), {"tiled": False}),
        (("negative-prompt", ""), {"negative_prompt": ""}),
        (("model", "7"), {"model": "7"}),
    ],
)
def test_values_are_read_by_type(given: tuple[str, str | None], value: dict[str, Any]) -> None:
    assert values(given) == {"prompt": "x", **value}


def test_a_parameter_named_as_an_option_is_reached_by_param() -> None:
    assert explicit(["version=b=c"]) == [Given("version", "b=c")]
    assert inputs_from(PARAMETERS, explicit(["version=b", "prompt=y"]), "wfl_1", OWN) == {
        "version": "b",
        "prompt": "y",
    }
    with pytest.raises(Fault, match="no value"):
        explicit(["version"])


def test_everything_that_is_wrong_is_told_at_once_with_the_nearest() -> None:
    given = [
        Given("promt", "5"), Given("steps", "many"), Given("cfg", "nan"), Given("tiled", "maybe"), Given("seed", None),
        Given("verson", "1"), Given("no-steps", None), Given("seed", "1"), Given("xyz", None),
    ]  # fmt: skip
    with pytest.raises(Fault) as told:
        inputs_from(PARAMETERS, given, "wfl_1", OWN)
    assert told.value.lines == (
        "--promt: the workflow has no such parameter (nearest: --prompt)",
        "--steps: must be an integer, not 'many'",
        "--cfg: must be a number, not 'nan'",
        "--tiled: must be true or false, not 'maybe'",
        "--seed: has no value",
        "--verson: the workflow has no such parameter (nearest: --version)",
        "--no-steps: the workflow has no such parameter (nearest: --steps, --no-wait)",
        "--seed: is given twice",
        "--xyz: the workflow has no such parameter",
        "--prompt: is required: What to show.",
    )
    assert "workflows show wfl_1" in told.value.remedy
