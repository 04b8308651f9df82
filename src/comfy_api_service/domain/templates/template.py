"""Workflow templates: a graph with typed parameters and named outputs.

A template says nothing of who may use it; the graph that it is filled into is checked like any other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.graph.form import class_of

Number = int | float


class ParameterType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ENUM = "enum"
    IMAGE = "image"
    MODEL = "model"
    SEED = "seed"


@dataclass(frozen=True, slots=True)
class Target:
    """An input of a node that a parameter sets."""

    node: str
    input: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """`default` None: without a value a seed is drawn, a model is the graph's own or one of its family, and anything
    else stays as the graph has it. `minimum` and `maximum` bound numbers, both included.
    """

    name: str
    type: ParameterType
    targets: tuple[Target, ...]
    default: Any = None
    required: bool = False
    description: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    choices: tuple[str, ...] | None = None
    """Of an enum."""
    model_kind: str | None = None
    """Of a model: a kind of `GET /models`."""


@dataclass(frozen=True, slots=True)
class NamedOutput:
    name: str
    node: str


@dataclass(frozen=True, slots=True)
class Template:
    graph: Graph
    parameters: tuple[Parameter, ...]
    outputs: tuple[NamedOutput, ...]


def document_of(template: Template) -> dict[str, Any]:
    """As it is stored and shown."""
    return {
        "graph": template.graph,
        "parameters": [parameter_document(one) for one in template.parameters],
        "outputs": [{"name": output.name, "node": output.node} for output in template.outputs],
    }


def parameter_document(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "targets": [{"node": target.node, "input": target.input} for target in one.targets],
        "default": one.default,
        "required": one.required,
        "description": one.description,
        "minimum": one.minimum,
        "maximum": one.maximum,
        "choices": None if one.choices is None else list(one.choices),
        "model_kind": one.model_kind,
    }


def template_from(document: Mapping[str, Any]) -> Template:
    """The template that `document_of` wrote."""
    return Template(
        document["graph"],
        tuple(_parameter_from(one) for one in document["parameters"]),
        tuple(NamedOutput(one["name"], one["node"]) for one in document["outputs"]),
    )


def _parameter_from(document: Mapping[str, Any]) -> Parameter:
    choices: Sequence[str] | None = document.get("choices")
    return Parameter(
        name=document["name"],
        type=ParameterType(document["type"]),
        targets=tuple(Target(one["node"], one["input"]) for one in document["targets"]),
        default=document.get("default"),
        required=document.get("required", False),
        description=document.get("description", ""),
        minimum=document.get("minimum"),
        maximum=document.get("maximum"),
        choices=None if choices is None else tuple(choices),
        model_kind=document.get("model_kind"),
    )


def named_outputs(graph: Graph, nodes: Sequence[str]) -> tuple[NamedOutput, ...]:
    """A name for each of the output nodes: what its class is called, numbered if several are called so."""
    taken: dict[str, int] = {}
    found = []
    for node_id in nodes:
        plain = re.sub(
            r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_of(graph[node_id])).lower()
        )
        name = plain.strip("_")[:48] or "output"
        name = name if name[0].isalpha() else f"output_{name}"
        taken[name] = taken.get(name, 0) + 1
        found.append(NamedOutput(name if taken[name] == 1 else f"{name}_{taken[name]}", node_id))
    return tuple(found)
