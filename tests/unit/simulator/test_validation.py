from typing import Any

import pytest
from tests.unit.simulator.graphs import Graph, flat, flux, node, text_to_image

from comfy_api_service.simulator.inventory import Inventory
from comfy_api_service.simulator.settings import SimulatorSettings
from comfy_api_service.simulator.validation import Verdict, validate

INVENTORY = Inventory(SimulatorSettings(), ["example.png"])


def check(graph: Graph, inventory: Inventory = INVENTORY) -> Verdict:
    return validate(graph, inventory, lambda name: name == "example.png")


def kinds(verdict: Verdict, node_id: str) -> list[str]:
    return [e["type"] for e in verdict.node_errors[node_id]["errors"]]


@pytest.mark.parametrize("graph", [flat(), text_to_image(), flux()])
def test_sound_graphs_pass(graph: Graph) -> None:
    verdict = check(graph)
    assert verdict.error is None
    assert verdict.node_errors == {}


@pytest.mark.parametrize(
    ("node_id", "name", "value", "kind"),
    [
        ("3", "steps", 0, "value_smaller_than_min"),
        ("3", "steps", 10_001, "value_bigger_than_max"),
        ("3", "steps", "many", "invalid_input_type"),
        ("3", "sampler_name", "bogus", "value_not_in_list"),
        ("4", "ckpt_name", "absent.safetensors", "value_not_in_list"),
        ("3", "model", ["6", 0], "return_type_mismatch"),
        ("3", "model", ["4", 0, 1], "bad_linked_input"),
    ],
)
def test_a_wrong_value_is_told_by_its_kind(node_id: str, name: str, value: Any, kind: str) -> None:
    graph = text_to_image()
    graph[node_id]["inputs"][name] = value
    verdict = check(graph)
    assert verdict.error is not None
    assert verdict.error["type"] == "prompt_outputs_failed_validation"
    assert kinds(verdict, node_id) == [kind]
    assert verdict.node_errors[node_id]["dependent_outputs"] == ["9"]


def test_a_missing_input_is_told() -> None:
    graph = text_to_image()
    del graph["6"]["inputs"]["text"]
    assert kinds(check(graph), "6") == ["required_input_missing"]


def test_a_model_outside_the_newer_form_of_list_is_refused_too() -> None:
    graph = flat() | {
        "3": node("UpscaleModelLoader", model_name="absent.pth"),
        "4": node("ImageUpscaleWithModel", upscale_model=["3", 0], image=["1", 0]),
    }
    graph["2"]["inputs"]["images"] = ["4", 0]
    assert kinds(check(graph), "3") == ["value_not_in_list"]
    graph["3"]["inputs"]["model_name"] = "RealESRGAN_x4plus.pth"
    assert check(graph).error is None


def test_an_output_that_is_sound_runs_beside_one_that_is_not() -> None:
    graph = flat() | {"5": node("LoadImage", image="no.png"), "6": node("PreviewImage", images=["5", 0])}
    verdict = check(graph)
    assert verdict.error is None
    assert verdict.outputs == ["2"]
    assert kinds(verdict, "5") == ["custom_validation_failed"]


def test_numbers_are_converted_in_place() -> None:
    graph = flat()
    graph["1"]["inputs"] |= {"width": "64", "height": 64.0, "batch_size": True}
    assert check(graph).error is None
    assert graph["1"]["inputs"]["width"] == 64
    assert graph["1"]["inputs"]["batch_size"] == 1


def test_a_wrapped_list_is_a_value() -> None:
    graph = flat()
    graph["2"]["inputs"]["filename_prefix"] = {"__value__": ["a", "b"]}
    assert check(graph).error is None
    assert graph["2"]["inputs"]["filename_prefix"] == "['a', 'b']"


def test_a_cycle_is_an_error_and_no_crash() -> None:
    graph = flat()
    graph["3"] = node("ImageInvert", image=["4", 0])
    graph["4"] = node("ImageInvert", image=["3", 0])
    graph["2"]["inputs"]["images"] = ["3", 0]
    assert check(graph).error is not None


def test_a_server_may_lack_models_and_nodes() -> None:
    bare = Inventory(SimulatorSettings(models={}, without_nodes=frozenset({"UNETLoader"})), [])
    assert kinds(check(text_to_image(), bare), "4") == ["value_not_in_list"]
    verdict = check(flux(), bare)
    assert verdict.error is not None
    assert verdict.error["type"] == "invalid_prompt"
