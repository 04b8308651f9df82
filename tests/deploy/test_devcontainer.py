"""The dev container, and what a checkout must be to run in one: whole lines, and run bits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.support.image import ROOT, argument, pairs

SCHEMA = Path(__file__).parents[1] / "fixtures" / "devcontainer" / "schema.json"
TEXT = (".ci", ".devcontainer", "deploy", "docs", "src", "tests/deploy", "tests/support")


def told() -> dict[str, Any]:
    """The file without its comments, which stand on lines of their own."""
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return found


def files() -> Iterator[Path]:
    yield from (ROOT / name for name in ("Makefile", "pyproject.toml", "requirements.lock", "README.md"))
    for name in TEXT:
        for path in (ROOT / name).rglob("*"):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and path.suffix not in (".png", ".jpg", ".webp")
            ):
                yield path


def test_it_is_what_the_specification_says() -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(told())] == []
    assert not validator.is_valid({**told(), "postCreateComand": "make"})
    assert not validator.is_valid({**told(), "forwardPorts": ["x"]})


def test_it_is_the_python_of_the_image_and_makes_the_environment_of_the_makefile() -> None:
    assert re.search(rf":{re.escape(argument('PYTHON_VERSION'))}-", told()["image"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = told()["postCreateCommand"].removeprefix("make ")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)
    python = told()["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python == "${containerWorkspaceFolder}/.venv/bin/python"
    assert "VENV   := .venv" in makefile


def test_its_ports_are_those_that_things_listen_on() -> None:
    assert told()["forwardPorts"] == [int(pairs("ENV")["PORT"]), 8188]
    assert {int(port) for port in told()["portsAttributes"]} == set(told()["forwardPorts"])


def test_lines_end_as_linux_wants_and_a_checkout_keeps_them_so() -> None:
    assert [str(path) for path in files() if b"\r\n" in path.read_bytes()] == []
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text().splitlines()


def test_what_begins_with_an_interpreter_may_be_run_and_nothing_else() -> None:
    for path in files():
        runs = path.read_bytes()[:2] == b"#!"
        assert bool(path.stat().st_mode & 0o111) is runs, path


@pytest.mark.parametrize("name", ["kubernetes", "systemd", "scripts", "compose.yaml", "Containerfile"])
def test_what_is_deployed_is_told_of_in_the_docs(name: str) -> None:
    assert f"deploy/{name}" in (ROOT / "docs" / "DEPLOYMENT.md").read_text(encoding="utf-8")
