"""Templates filled: every fault of the inputs at once, values where they belong, and a schema that agrees."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import validator_for

from comfy_api_service.domain.errors import ValidationFailed
from comfy_api_service.domain.templates.filling import fill, schema_of
from comfy_api_service.domain.templates.fitting import fitting
from comfy_api_service.domain.templates.template import (
    NamedOutput,
    Parameter,
    ParameterType,
    Target,
    Template,
    document_of,
    named_outputs,
    template_from,
)

GRAPH = {
    "1": {
        "class_type": "Any",
        "inputs": {"text": "a", "number": 1, "other": ["2", 0], "flag": False, "pick": "x"},
    },
    "2": {"class_type": "Any", "inputs": {"seed": 1, "seed_too": 2, "model": "m", "image": "i", "real": 0.5}},
}
PARAMETERS = (
    Parameter("prompt", ParameterType.STRING, (Target("1", "text"),), required=True),
    Parameter("number", ParameterType.INTEGER, (Target("1", "number"),), default=7, minimum=1, maximum=9),
    Parameter("real", ParameterType.NUMBER, (Target("2", "real"),), minimum=0, maximum=1),
    Parameter("flag", ParameterType.BOOLEAN, (Target("1", "flag"),)),
    Parameter("pick", ParameterType.ENUM, (Target("1", "pick"),), choices=("x", "y")),
    Parameter("seed", ParameterType.SEED, (Target("2", "seed"), Target("2", "seed_too"))),
    Parameter("model", ParameterType.MODEL, (Target("2", "model"),), model_kind="checkpoints"),
    Parameter("image", ParameterType.IMAGE, (Target("2", "image"),)),
)
TEMPLATE = Template(GRAPH, PARAMETERS, (NamedOutput("picture", "1"),))


def filled(**inputs: Any) -> Any:
    return fill(TEMPLATE, inputs, seed_source=lambda: 42, any_model=lambda kind, own: f"{kind} like {own}")


def faults_of(error: ValidationFailed) -> set[str]:
    return {one["field"] for one in error.details["errors"]}


def test_values_stand_where_their_targets_are_and_the_template_stays() -> None:
    done = filled(prompt="hello", number=3, real=1, flag=True, pick="y", seed=5, model="own", image="upl_1")
    assert done.graph == {
        "1": {
            "class_type": "Any",
            "inputs": {"text": "hello", "number": 3, "other": ["2", 0], "flag": True, "pick": "y"},
        },
        "2": {
            "class_type": "Any",
            "inputs": {"seed": 5, "seed_too": 5, "model": "own", "image": "upl_1", "real": 1},
        },
    }
    assert TEMPLATE.graph["1"]["inputs"]["text"] == "a"


def test_what_is_not_given_is_the_default_drawn_chosen_or_as_in_the_graph() -> None:
    done = filled(prompt="hello")
    assert done.inputs == {"prompt": "hello", "number": 7, "seed": 42, "model": "checkpoints like m"}
    assert done.graph["2"]["inputs"]["seed_too"] == 42
    assert done.graph["2"]["inputs"]["image"] == "i"


@pytest.mark.parametrize("seed", [None, -1])
def test_a_seed_of_nothing_or_minus_one_is_drawn(seed: int | None) -> None:
    assert filled(prompt="p", seed=seed).inputs["seed"] == 42


def test_every_fault_is_told_at_once_by_its_path() -> None:
    with pytest.raises(ValidationFailed) as refused:
        filled(
            number=10, real="1", flag=1, pick="z", seed=2**64, model="", image=7, unknown=1,
        )  # fmt: skip
    assert faults_of(refused.value) == {
        f"inputs.{name}"
        for name in ("prompt", "number", "real", "flag", "pick", "seed", "model", "image", "unknown")
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", True), ("number", 1.5), ("real", float("nan")), ("real", True), ("seed", 1.0), ("prompt", 1)],
)
def test_types_are_strict(name: str, value: object) -> None:
    with pytest.raises(ValidationFailed) as refused:
        filled(**{"prompt": "p", name: value})
    assert faults_of(refused.value) == {f"inputs.{name}"}


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(-1, 2),
    st.sampled_from(["", "x", "y", "z"]),
    st.lists(st.integers()),
)


@given(st.dictionaries(st.sampled_from([*(one.name for one in PARAMETERS), "unknown"]), VALUES))
def test_the_schema_refuses_what_filling_refuses(inputs: dict[str, Any]) -> None:
    inputs = {name: value for name, value in inputs.items() if value is not None}
    schema = validator_for(schema_of(TEMPLATE))
    try:
        filled(**inputs)
    except ValidationFailed:
        accepted = False
    else:
        accepted = True
    if isinstance(inputs.get("seed"), float) and inputs["seed"].is_integer():
        return  # 1.0 is an integer to JSON Schema; the API reads it as one before it comes here
    assert schema.is_valid(inputs) == accepted


def test_a_template_is_the_same_after_its_document() -> None:
    assert template_from(document_of(TEMPLATE)) == TEMPLATE
    assert fitting(TEMPLATE) is TEMPLATE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Prompt"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "number"}, "name"),
        ({"targets": ()}, "targets"),
        ({"targets": (Target("9", "text"),)}, "targets.0.node"),
        ({"targets": (Target("1", "text"), Target("1", "nothing"))}, "targets.1.input"),
        ({"targets": (Target("1", "other"),)}, "targets.0.input"),
        ({"choices": ("a",)}, "choices"),
        ({"type": ParameterType.ENUM}, "choices"),
        ({"type": ParameterType.MODEL}, "model_kind"),
        ({"model_kind": "vae"}, "model_kind"),
        ({"minimum": 1}, "minimum"),
        ({"default": 1}, "default"),
        ({"description": "x" * 1001}, "description"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], field: str) -> None:
    first = replace(PARAMETERS[0], **changes)
    with pytest.raises(ValidationFailed) as refused:
        fitting(Template(GRAPH, (*PARAMETERS[1:], first), ()))
    assert faults_of(refused.value) == {f"parameters.{len(PARAMETERS) - 1}.{field}"}


def test_bounds_the_wrong_way_round_and_outputs_of_nothing_are_named() -> None:
    turned = replace(PARAMETERS[1], minimum=5, maximum=4, default=None)
    outputs = (NamedOutput("one", "1"), NamedOutput("one", "7"), NamedOutput("No", "1"))
    with pytest.raises(ValidationFailed) as refused:
        fitting(Template(GRAPH, (turned,), outputs))
    assert faults_of(refused.value) == {
        "parameters.0.maximum", "outputs.1.name", "outputs.1.node", "outputs.2.name",
    }  # fmt: skip


def test_outputs_are_called_as_their_class() -> None:
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {}},
        "2": {"class_type": "SaveImage", "inputs": {}},
        "3": {"class_type": "VHS_VideoCombine", "inputs": {}},
        "4": {"class_type": "保存", "inputs": {}},
    }
    assert [one.name for one in named_outputs(graph, list(graph))] == [
        "save_image", "save_image_2", "vhs_video_combine", "output",
    ]  # fmt: skip
