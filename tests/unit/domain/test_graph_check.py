"""The validator of these tests finds what it is there to find."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.domain.graph_check import VERSIONS, faults, object_info

GOOD: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 1]}},
    "3": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0],
            "seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        },
    },
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
}  # fmt: skip

BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no class": lambda g: g["4"].update(class_type="NoSuch"),
    "lacks steps": lambda g: g["4"]["inputs"].pop("steps"),
    "no such input": lambda g: g["4"]["inputs"].update(guidance=1.0),
    "no node": lambda g: g["4"]["inputs"].update(model=["9", 0]),
    "has no output": lambda g: g["4"]["inputs"].update(model=["1", 3]),
    "is taken": lambda g: g["4"]["inputs"].update(model=["1", 1]),
    "a link forward": lambda g: g["4"]["inputs"].update(latent_image=["4", 0]),
    "is not in the list": lambda g: g["4"]["inputs"].update(sampler_name="plms"),
    "a value where": lambda g: g["4"]["inputs"].update(model="x"),
    "int where FLOAT": lambda g: g["4"]["inputs"].update(cfg=7),
    "< 1": lambda g: g["4"]["inputs"].update(steps=0),
    "> 1.0": lambda g: g["4"]["inputs"].update(denoise=1.1),
    "steps of 16": lambda g: g["3"]["inputs"].update(width=72),
    "no output node": lambda g: g.pop("6"),
    "made for nothing": lambda g: g.pop("6"),
    "no name of a file": lambda g: g["1"]["inputs"].update(ckpt_name=""),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_valid_graph_has_no_fault(version: str) -> None:
    assert faults(GOOD, object_info(version)) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", BREAKS)
def test_each_break_is_found(version: str, fault: str) -> None:
    graph = copy.deepcopy(GOOD)
    BREAKS[fault](graph)
    assert any(fault in line for line in faults(graph, object_info(version)))
