"""Lists in the docs are what the code says, and the picture of the states shows every move."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from comfy_api_service.domain.job import MOVES
from comfy_api_service.telemetry import Metrics

DOCS = Path(__file__).parents[2] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["ERRORS.md", "NODES.md", "SETTINGS.md"])
def test_generated_lists_are_current(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == _generator().PAGES[page](), "run `make docs`"


def test_the_picture_of_the_states_shows_every_move_and_no_other() -> None:
    text = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    picture = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    assert picture is not None
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", picture.group(1), re.MULTILINE))
    assert drawn == {(str(a), str(b)) for a, targets in MOVES.items() for b in targets}


def test_every_metric_is_in_the_docs() -> None:
    text = (DOCS / "METRICS.md").read_text(encoding="utf-8")
    for family in Metrics().registry.collect():
        assert f"`{family.name}" in text, f"{family.name} is not described in docs/METRICS.md"
