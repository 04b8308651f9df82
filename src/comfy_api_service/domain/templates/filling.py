"""A template filled: from values for its parameters to a graph; and the schema of those values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api_service.domain.errors import FieldError, ValidationFailed
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.graph.form import inputs_of
from comfy_api_service.domain.templates.fitting import SEED_MAX, SEED_RANDOM, TEXT_MAX, fault_of
from comfy_api_service.domain.templates.template import Parameter, ParameterType, Template


@dataclass(frozen=True, slots=True)
class Filled:
    """The graph with its values, and all values that were used, seeds drawn and models chosen."""

    graph: Graph
    inputs: Mapping[str, Any]


def fill(
    template: Template,
    inputs: Mapping[str, Any],
    *,
    seed_source: Callable[[], int],
    any_model: Callable[[str, str], str | None],
) -> Filled:
    """The graph with these values. `any_model` is given a kind and the graph's own model, and gives one of that kind
    where none is named; None leaves the graph's own.

    Raises `ValidationFailed` with every fault, `inputs.{name}` each.
    """
    known = {parameter.name: parameter for parameter in template.parameters}
    faults = [
        FieldError(f"inputs.{name}", "the workflow has no such parameter")
        for name in inputs
        if name not in known
    ]
    used: dict[str, Any] = {}
    for name, parameter in known.items():
        value = inputs.get(name)
        if value is None:
            value = parameter.default
        if value is None and parameter.required:
            faults.append(FieldError(f"inputs.{name}", "is required"))
            continue
        if value is not None and (fault := fault_of(parameter, value)) is not None:
            faults.append(FieldError(f"inputs.{name}", fault))
            continue
        if parameter.type is ParameterType.SEED and value in (None, SEED_RANDOM):
            value = seed_source()
        elif parameter.type is ParameterType.MODEL and value is None:
            value = any_model(parameter.model_kind or "", _own(template.graph, parameter))
        elif parameter.type is ParameterType.INTEGER and value is not None:
            value = int(value)
        if value is not None:
            used[name] = value
    if faults:
        raise ValidationFailed(faults)
    return Filled(_with_values(template, used), used)


def _own(graph: Graph, parameter: Parameter) -> str:
    """What stands in the graph where the parameter will."""
    target = parameter.targets[0]
    return str(inputs_of(graph[target.node])[target.input])


def _with_values(template: Template, used: Mapping[str, Any]) -> Graph:
    changes: dict[str, dict[str, Any]] = {}
    for parameter in template.parameters:
        if parameter.name in used:
            for target in parameter.targets:
                changes.setdefault(target.node, {})[target.input] = used[parameter.name]
    return {
        node_id: {**node, "inputs": {**inputs_of(node), **changes[node_id]}} if node_id in changes else node
        for node_id, node in template.graph.items()
    }


def schema_of(template: Template) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `inputs`."""
    properties = {parameter.name: _schema_of(parameter) for parameter in template.parameters}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": [
            parameter.name
            for parameter in template.parameters
            if parameter.required and parameter.default is None
        ],
        "additionalProperties": False,
    }


def _schema_of(parameter: Parameter) -> dict[str, Any]:
    of_type: dict[ParameterType, dict[str, Any]] = {
        ParameterType.STRING: {"type": "string", "maxLength": TEXT_MAX},
        ParameterType.INTEGER: {"type": "integer"},
        ParameterType.NUMBER: {"type": "number"},
        ParameterType.BOOLEAN: {"type": "boolean"},
        ParameterType.ENUM: {"type": "string", "enum": list(parameter.choices or ())},
        ParameterType.IMAGE: {
            "type": "string",
            "minLength": 1,
            "x-kind": "image",
            "description": "An upload's id, a job's id, a data URL or an https URL.",
        },
        ParameterType.MODEL: {
            "type": "string",
            "minLength": 1,
            "maxLength": TEXT_MAX,
            "x-model-kind": parameter.model_kind,
        },
        ParameterType.SEED: {
            "type": "integer",
            "minimum": SEED_RANDOM,
            "maximum": SEED_MAX,
            "x-kind": "seed",
        },
    }
    schema = of_type[parameter.type]
    bounds = {"minimum": parameter.minimum, "maximum": parameter.maximum, "default": parameter.default}
    schema |= {word: value for word, value in bounds.items() if value is not None}
    if parameter.description:
        schema["description"] = parameter.description
    return schema
