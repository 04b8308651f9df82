"""The form of a graph: nodes, links, and the one way to write it down."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

Graph: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Node id → `{"class_type": str, "inputs": {name: value or link}}`."""

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)  # fmt: skip


class Link(NamedTuple):
    """`input` of a node takes output number `output` of the node `source`."""

    input: str
    source: str
    output: int


def canonical(document: Mapping[str, Any]) -> bytes:
    """The document as JSON in UTF-8, keys sorted, without blanks: equal documents give equal bytes.

    1 and 1.0 are different values here, as they are in JSON for ComfyUI.
    Raises ValueError for what JSON cannot hold: NaN, unpaired surrogates, values of other types,
    nesting beyond the interpreter's limit.
    """
    try:
        return _ENCODER.encode(document).encode()
    except (TypeError, RecursionError) as fault:
        raise ValueError("the document is not JSON") from fault


def is_link(value: object) -> TypeGuard[list[Any]]:
    """ComfyUI's own rule (`graph_utils.is_link`): a list of a string and a number."""
    if type(value) is not list or len(value) != 2 or not isinstance(value[0], str):
        return False
    output = value[1]
    return type(output) is int or (type(output) is float and math.isfinite(output))


def class_of(node: object) -> str:
    """The node's class, or "" when it has none."""
    name = node.get("class_type") if type(node) is dict or isinstance(node, Mapping) else None
    return name if isinstance(name, str) else ""


def inputs_of(node: object) -> Mapping[str, Any]:
    """The node's inputs, or nothing when they are not a mapping."""
    inputs = node.get("inputs") if type(node) is dict or isinstance(node, Mapping) else None
    return inputs if type(inputs) is dict or isinstance(inputs, Mapping) else {}


def links(node: Mapping[str, Any]) -> Iterator[Link]:
    """The links that the node's inputs are, in their order; also those to nodes that are not there."""
    for name, value in inputs_of(node).items():
        if is_link(value):
            yield Link(name, value[0], int(value[1]))
