"""The workflows that come with the service: each fits together, and fills into a graph that may be queued."""

from functools import lru_cache
from typing import Any

import orjson
import pytest
from jsonschema_rs import validator_for
from tests.unit.domain.graph_check import VERSIONS, faults, object_info

from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.domain.checking import Rules, check_graph
from comfy_api_service.domain.families import like
from comfy_api_service.domain.graph.form import inputs_of
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.domain.templates.filling import fill, schema_of
from comfy_api_service.domain.templates.template import Parameter, ParameterType
from comfy_api_service.services.ready_made import ready_made
from comfy_api_service.simulator.inventory import Inventory as Simulated
from comfy_api_service.simulator.settings import DEFAULT_MODELS, SimulatorSettings

UPLOAD = "upl_01234567890123456789ABCDEF"
READY = ready_made()
EXPECTED = (
    "controlnet", "image-to-image", "inpainting", "resizing", "text-to-image-flux", "text-to-image-sd15",
    "text-to-image-sd3", "text-to-image-sdxl", "upscaling",
)  # fmt: skip
each = pytest.mark.parametrize("name", EXPECTED)
on_each = pytest.mark.parametrize("version", VERSIONS)


@lru_cache
def inventory(version: str) -> Inventory:
    """All classes that were recorded, with the simulator's models."""
    settings = SimulatorSettings(protocol="0.3.64" if version == "0.3.64" else "0.8.0")
    return parse(orjson.loads(Simulated(settings, []).object_info()))


def required(name: str) -> dict[str, Any]:
    values = {ParameterType.IMAGE: UPLOAD, ParameterType.STRING: "a lighthouse at dawn"}
    return {
        one.name: values[one.type]
        for one in READY[name].version.template.parameters
        if one.required and one.default is None
    }


def filled(name: str, **inputs: Any) -> dict[str, Any]:
    done = fill(
        READY[name].version.template,
        required(name) | inputs,
        seed_source=lambda: 7,
        any_model=lambda kind, own: like(own, DEFAULT_MODELS[kind]),
    )
    return dict(done.graph)


def test_there_is_one_for_each_purpose() -> None:
    assert tuple(READY) == EXPECTED
    assert len({one.workflow.name for one in READY.values()}) == len(EXPECTED)
    assert all(one.workflow.description for one in READY.values())


@on_each
@each
def test_with_its_defaults_it_may_be_queued_under_the_strictest_policy(name: str, version: str) -> None:
    graph = filled(name)
    checked = check_graph(graph, inventory(version), Rules(NodePolicy.core()))
    assert checked.graph.keys() == graph.keys(), "every node is needed"
    found = faults(graph, object_info(version))
    assert [one for one in found if not one.endswith("a link forward")] == []  # the order of nodes is free
    pictures = sum(
        len(one.targets) for one in READY[name].version.template.parameters if one.type is ParameterType.IMAGE
    )
    assert len(checked.files) == pictures


@on_each
@each
def test_at_its_bounds_it_may_be_queued_too(name: str, version: str) -> None:
    parameters = READY[name].version.template.parameters
    for bound in ("minimum", "maximum"):
        extreme = {one.name: value for one in parameters if (value := getattr(one, bound)) is not None}
        check_graph(filled(name, **extreme), inventory(version), Rules(NodePolicy.core()))


@each
def test_each_parameter_sets_what_it_names(name: str) -> None:
    template = READY[name].version.template
    for one in template.parameters:
        value = other(one)
        graph = filled(name, **{one.name: value})
        assert all(inputs_of(graph[target.node])[target.input] == value for target in one.targets)


def other(one: Parameter) -> Any:
    match one.type:
        case ParameterType.INTEGER | ParameterType.NUMBER:
            return one.maximum
        case ParameterType.ENUM:
            return (one.choices or ())[0]
        case ParameterType.SEED:
            return 11
        case _:
            return "something else"


@each
def test_its_schema_takes_what_it_takes(name: str) -> None:
    schema = validator_for(schema_of(READY[name].version.template))
    assert schema.is_valid(required(name))
    assert not schema.is_valid({**required(name), "nothing": 1})
    assert schema.is_valid({}) is not bool(required(name))


@each
def test_its_own_models_are_told_as_defaults_or_chosen(name: str) -> None:
    for one in READY[name].version.template.parameters:
        if one.type is ParameterType.MODEL and one.default is not None:
            assert one.default in DEFAULT_MODELS[one.model_kind or ""]
