"""A graph that comes back from a backend is compared with what was sent: strictly, but for what ComfyUI converts."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.domain.graph import is_same_graph

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "recordings"
GRAPH: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": "64", "height": 20.7, "on": 1, "name": 5, "of": {"__value__": [1, 2]}},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def with_input(node: str, name: str, value: Any) -> dict[str, Any]:
    graph = copy.deepcopy(GRAPH)
    graph[node]["inputs"][name] = value
    return graph


def shown() -> dict[str, Any]:
    """As ComfyUI shows it in its history."""
    graph = copy.deepcopy(GRAPH)
    graph["1"]["inputs"] |= {"width": 64, "height": 20, "on": True, "name": "5", "of": [1, 2]}
    graph["1"]["is_changed"] = ["abc"]
    return graph


def test_what_comfyui_converts_and_adds_is_no_change() -> None:
    assert is_same_graph(GRAPH, GRAPH)
    assert is_same_graph(GRAPH, shown())


def pairs() -> list[Any]:
    """Every prompt that a real server took, with what it showed in its history."""
    found: list[Any] = []
    for path in sorted(RECORDINGS.glob("*/*.json")):
        sent: dict[str, Any] = {}
        for entry in json.loads(path.read_text()):
            if entry["dir"] != "http":
                continue
            if entry["path"] == "/prompt" and entry["method"] == "POST" and entry["status"] == 200:
                sent[entry["body"]["prompt_id"]] = entry["request"]["prompt"]
            elif entry["path"].startswith("/history/") and isinstance(entry["body"], dict):
                for prompt_id, told in entry["body"].items():
                    name = f"{path.parent.name}-{path.stem}-{len(found)}"
                    if prompt_id in sent:
                        found.append(pytest.param(sent[prompt_id], told["prompt"][2], id=name))
    return found


@pytest.mark.parametrize(("sent", "told"), pairs())
def test_real_servers_show_what_they_were_sent(sent: dict[str, Any], told: dict[str, Any]) -> None:
    assert is_same_graph(sent, told)


def test_there_are_recordings() -> None:
    assert len(pairs()) > 40


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"1": GRAPH["1"]},
        {**GRAPH, "3": GRAPH["2"]},
        {**GRAPH, "2": None},
        {**GRAPH, "2": {**GRAPH["2"], "class_type": "PreviewImage"}},
        {**GRAPH, "2": {"class_type": "SaveImage"}},
        {**GRAPH, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}},
        with_input("2", "more", 1),
        with_input("2", "images", ["1", 1]),
        with_input("2", "images", "1"),
        with_input("2", "filename_prefix", ["1", 0]),
        with_input("2", "filename_prefix", "y"),
        with_input("1", "width", 65),
        with_input("1", "height", 21),
        with_input("1", "height", 20.6),
        with_input("1", "on", False),
        with_input("1", "name", "6"),
        with_input("1", "name", None),
        with_input("1", "of", [2, 1]),
    ],
)
def test_anything_else_is_one(other: dict[str, Any]) -> None:
    assert not is_same_graph(GRAPH, other)


def test_inputs_that_the_backend_was_told_otherwise() -> None:
    other = with_input("2", "filename_prefix", "y")
    assert is_same_graph(GRAPH, other, {("2", "filename_prefix")})
    assert not is_same_graph(GRAPH, other, {("1", "filename_prefix")})
