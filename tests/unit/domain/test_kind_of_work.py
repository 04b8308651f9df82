"""Graphs of one kind: they take as long, whatever their texts, seeds and pictures are."""

import copy
from typing import Any

import pytest
from tests.unit.domain.graph_corpus import legitimate

from comfy_api_service.domain.graph import kind_of_work

GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "upl_00000000000000000000000000"}},
    "4": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 7.0, "positive": ["2", 0]}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
}


def changed(node: str, name: str, value: object) -> dict[str, Any]:
    graph = copy.deepcopy(GRAPH)
    graph[node]["inputs"][name] = value
    return graph


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("2", "text", "a ship"),
        ("3", "image", "upl_11111111111111111111111111"),
        ("4", "seed", 2**63),
        ("5", "filename_prefix", "y"),
    ],
)
def test_what_costs_nothing_does_not_count(node: str, name: str, value: object) -> None:
    assert kind_of_work(changed(node, name, value)) == kind_of_work(GRAPH)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("1", "ckpt_name", "b.safetensors"),
        ("4", "steps", 21),
        ("4", "cfg", 1.0),
        ("4", "positive", ["3", 0]),
        ("4", "tiled", True),
    ],
)
def test_what_costs_counts(node: str, name: str, value: object) -> None:
    assert kind_of_work(changed(node, name, value)) != kind_of_work(GRAPH)


def test_graphs_of_different_work_are_of_different_kinds() -> None:
    kinds = [kind_of_work(line["graph"]) for line in legitimate().values()]
    assert len(set(kinds)) > len(kinds) * 0.8
