"""What the answer to `POST /prompt` says is wrong with a graph.

`details` is never read: it repeats what the caller wrote, and exceptions with the server's paths.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.cleaning import clean
from comfy_api_service.comfyui.errors import NodeFault, PromptRefused

MAX_FAULTS: Final = 100
"""Faults of nodes that are kept of one refusal."""


def refusal(body: object, *, partly: bool = False) -> PromptRefused:
    """The refusal that the body of an answer to `POST /prompt` tells."""
    content = wire.mapping(body)
    error = wire.mapping(content.get("error"))
    faults = tuple(_faults(wire.mapping(content.get("node_errors"))))
    error_type = _word(error.get("type"))
    message = clean(error.get("message")) or "The backend refused the graph."
    if partly:
        error_type, message = "partly_invalid", "Some outputs of the graph are invalid."
    return PromptRefused(error_type, message, faults, partly=partly)


def _word(value: object) -> str:
    """A fault's name as ComfyUI writes them, else `unknown`."""
    found = wire.identifier(value, 64)
    return found if found is not None and found.replace("_", "").isalnum() else "unknown"


def _faults(nodes: Mapping[str, Any]) -> Iterator[NodeFault]:
    left = MAX_FAULTS
    for key, node in nodes.items():
        node_id = wire.node_id(key)
        errors = wire.mapping(node).get("errors")
        if node_id is None or not isinstance(errors, list):
            continue
        class_type = clean(wire.mapping(node).get("class_type"), longest=128)
        for error in errors[:left]:
            left -= 1
            yield _fault(node_id, class_type, wire.mapping(error))


def _fault(node_id: str, class_type: str, error: Mapping[str, Any]) -> NodeFault:
    info = wire.mapping(error.get("extra_info"))
    error_type = _word(error.get("type"))
    value = None
    if error_type == "value_not_in_list":
        value = wire.identifier(info.get("received_value"), 256)
    return NodeFault(
        node_id=node_id,
        class_type=class_type,
        input=wire.identifier(info.get("input_name"), 128),
        error_type=error_type,
        message=clean(error.get("message"), longest=200) or error_type.replace("_", " "),
        value=value,
    )
