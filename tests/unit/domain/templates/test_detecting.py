"""Parameters that are found in graphs: by titles, and those that everybody wants to set."""

from typing import Any

import pytest
from tests.support.object_info import inventory

from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.templates.detecting import detect, titles_of
from comfy_api_service.domain.templates.fitting import fitting
from comfy_api_service.domain.templates.template import Parameter, ParameterType, Template

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["10", 0],
            "positive": ["12", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
            "seed": 7,
            "steps": 30,
            "cfg": 6.5,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 384, "batch_size": 2}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["4", 0],
            "clip": ["4", 1],
            "lora_name": "style.safetensors",
            "strength_model": 1.0,
            "strength_clip": 1.0,
        },
    },
    "11": {"class_type": "LoadImage", "inputs": {"image": "mine.png"}},
    "12": {
        "class_type": "ControlNetApply",
        "inputs": {"conditioning": ["6", 0], "control_net": ["13", 0], "image": ["11", 0], "strength": 0.8},
    },
    "13": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "canny.pth"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}  # fmt: skip


@pytest.fixture(params=["0.3.64", "0.8.0", None])
def known(request: pytest.FixtureRequest) -> Inventory | None:
    return None if request.param is None else inventory(request.param)


def found(graph: dict[str, Any], known: Inventory | None, **titles: str) -> dict[str, Parameter]:
    parameters = detect(graph, {node.lstrip("n"): title for node, title in titles.items()}, known)
    fitting(Template(graph, tuple(one for one in parameters if one.type is not ParameterType.MODEL), ()))
    return {one.name: one for one in parameters}


def test_what_everybody_wants_to_set_is_found_with_or_without_an_inventory(known: Inventory | None) -> None:
    parameters = found(GRAPH, known)
    types = {name: str(one.type) for name, one in parameters.items()}
    assert types == {
        "prompt": "string",
        "negative_prompt": "string",
        "seed": "seed",
        "steps": "integer",
        "cfg_scale": "number",
        "denoise": "number",
        "model": "model",
        "width": "integer",
        "height": "integer",
        "batch_size": "integer",
        "lora": "model",
        "image": "image",
        "controlnet": "model",
    }
    assert parameters["prompt"].default == "a lighthouse"  # through a node that stands between
    assert parameters["negative_prompt"].default == "blurry"
    assert parameters["image"].required
    assert parameters["image"].default is None
    assert parameters["seed"].default is None
    assert parameters["model"].model_kind == "checkpoints"
    assert parameters["lora"].default == "style.safetensors"
    assert parameters["width"].default == 640


def test_bounds_are_those_of_the_inventory() -> None:
    steps = found(GRAPH, inventory("0.8.0"))["steps"]
    assert (steps.minimum, steps.maximum) == (1, 10000)
    assert found(GRAPH, None)["steps"].maximum is None


def test_titles_that_begin_with_a_dollar_go_first_and_name_an_input(known: Inventory | None) -> None:
    parameters = found(GRAPH, known, n6="$subject", n3="$how strongly.denoise", n9="$ no", n12="Apply $5")
    assert list(parameters)[:2] == ["subject", "how_strongly"]
    assert parameters["subject"].targets[0].node == "6"
    assert parameters["how_strongly"].targets[0].input == "denoise"
    assert "prompt" not in parameters  # each input once
    assert len(parameters) == 13


def test_an_enumeration_is_an_enum_of_its_options() -> None:
    parameter = found(GRAPH, inventory("0.8.0"), n3="$sampler.sampler_name")["sampler"]
    assert parameter.type is ParameterType.ENUM
    assert "euler" in (parameter.choices or ())


def test_the_same_name_twice_is_numbered() -> None:
    two = {**GRAPH, "20": GRAPH["3"], "21": {**GRAPH["9"], "inputs": {"images": ["20", 0]}}}
    names = set(found(two, None))
    assert {"seed", "seed_2", "steps", "steps_2"} <= names


def test_a_loop_of_conditionings_ends() -> None:
    turning = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": 1}},
        "2": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["3", 0]}},
        "3": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["2", 0]}},
    }
    assert set(found(turning, None)) == {"seed"}


def test_titles_are_those_of_the_pages_export() -> None:
    document = {
        "1": {"class_type": "A", "_meta": {"title": "$x"}},
        "2": {"_meta": 7},
        "3": [],
        "4": {"_meta": {}},
    }
    assert titles_of(document) == {"1": "$x"}


def test_no_graph_is_looked_through_for_ever() -> None:
    """A thousand samplers with a thousand nodes before each would be a million looks."""
    combined = {
        f"c{n}": {
            "class_type": "ConditioningCombine",
            "inputs": {"a": [f"c{n + 1}", 0], "b": [f"c{n + 2}", 0]},
        }
        for n in range(1000)
    }
    samplers = {
        f"s{n}": {"class_type": "KSampler", "inputs": {"positive": [f"c{n}", 0]}} for n in range(1000)
    }
    looked = 0

    class Counted(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal looked
            looked += key == "inputs"
            return super().get(key, default)

    graph = {node_id: Counted(node) for node_id, node in {**combined, **samplers}.items()}
    assert detect(graph, {}, None) == ()
    assert looked < 200_000
