"""Lists in the docs are what the code says, and the picture of the states shows every move."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from comfy_api_service import __version__
from comfy_api_service.api.app import openapi_text
from comfy_api_service.domain.job import MOVES
from comfy_api_service.settings import Settings
from comfy_api_service.telemetry import Metrics

DOCS = Path(__file__).parents[2] / "docs"
NO_BOUNDS = {"port", "hsts_max_age"}
"""Numbers among the settings that bound nothing."""


def _generator() -> ModuleType:
    """As `make docs` runs it: from its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return importlib.import_module("generate")


GENERATOR = _generator()


@pytest.mark.parametrize("page", GENERATOR.PAGES)
def test_what_is_made_from_the_code_is_current(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == GENERATOR.PAGES[page](), "run `make docs`"


def test_the_examples_have_every_operation_once() -> None:
    document = json.loads(openapi_text(__version__))
    wanted = sorted(
        (operation["operationId"], method.upper())
        for operations in document["paths"].values()
        for method, operation in operations.items()
    )
    text = (DOCS / "examples/comfy-api.http").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^# @name (\w+)\n([A-Z]+) \{\{url\}\}/", text, re.MULTILINE)) == wanted
    collection: Any = json.loads((DOCS / "examples/comfy-api.postman_collection.json").read_text("utf-8"))
    items = [item for group in collection["item"] for item in group["item"]]
    assert sorted((item["id"], item["request"]["method"]) for item in items) == wanted
    named = {variable["key"] for variable in collection["variable"]}
    assert set(re.findall(r"\{\{(\w+)\}\}", json.dumps(items))) <= named


def test_every_bound_that_can_be_set_is_on_the_page_about_limits() -> None:
    text = (DOCS / "LIMITS.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        is_number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
        if is_number and name not in NO_BOUNDS:
            assert f"`{name.upper()}`" in text, f"add {name.upper()} to docs/bounds.py, then run `make docs`"


def test_the_picture_of_the_states_shows_every_move_and_no_other() -> None:
    text = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    picture = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    assert picture is not None
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", picture.group(1), re.MULTILINE))
    assert drawn == {(str(a), str(b)) for a, targets in MOVES.items() for b in targets}


def test_the_list_of_metrics_is_what_processes_tell() -> None:
    """Names as they are told, with their labels, of what is histograms that word; and units are in the names."""
    text = (DOCS / "METRICS.md").read_text(encoding="utf-8")
    listed = {
        name: (set(re.findall(r"`(\w+)`", labels)), says.startswith("histogram:"))
        for name, labels, says in re.findall(r"^\| `(comfyui_\w+)` \| ([^|]*)\| ([^|]*)", text, re.MULTILINE)
    }
    metrics = Metrics()
    metrics.http_requests.labels("GET", "/ping", "200")
    registry = metrics.registry
    told = {}
    for family in registry.collect():
        if family.name.startswith("comfyui_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            collector = registry._names_to_collectors.get(name)
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            labels |= set(getattr(collector, "_labelnames", ()))
            told[name] = (labels, family.type == "histogram")
            assert family.documentation.endswith("."), name
            assert family.type != "histogram" or name.endswith("_seconds"), name
    assert listed == told
