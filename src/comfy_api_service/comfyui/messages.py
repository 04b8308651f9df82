"""Frames of the socket to messages. What comes is hostile: sizes are bounded, types checked, nothing raised.

Frames are as in the recordings: text `{"type", "data"}`; binary with a 4-byte big-endian event in front.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.failure import failed
from comfy_api_service.comfyui.files import FileRef, given
from comfy_api_service.comfyui.message_types import (
    Cached,
    Failed,
    Idle,
    Interrupted,
    Message,
    NodeStarted,
    Output,
    PreviewFrame,
    QueueRemaining,
    Started,
    Stepped,
    Succeeded,
)
from comfy_api_service.comfyui.wire import Malformed

__all__ = [
    "MAX_FRAME",
    "Cached",
    "Failed",
    "FileRef",
    "Idle",
    "Interrupted",
    "Message",
    "NodeStarted",
    "Output",
    "PreviewFrame",
    "QueueRemaining",
    "Started",
    "Stepped",
    "Succeeded",
    "parse_binary",
    "parse_text",
]

MAX_FRAME: Final = 32 << 20
"""Bytes of one frame."""
MAX_NODES: Final = 10_000
"""Nodes named in one message."""
_MAX_METADATA: Final = 65_536
_PASSED_BY: Final = ('{"type": "progress_state"', '{"type":"progress_state"')
"""At each step beside `progress`, with every node of the graph each time: the bulk of all text, and nothing new."""

_PREVIEW: Final = 1
_PREVIEW_WITH_METADATA: Final = 4
_MEDIA_TYPES: Final = {1: "image/jpeg", 2: "image/png"}
_PICTURES: Final = frozenset(_MEDIA_TYPES.values())
_TWO_NUMBERS: Final = struct.Struct(">II")


def parse_text(frame: str | bytes, on_malformed: Callable[[], None] | None = None) -> Message | None:
    """The message of a text frame; None if its type is not known here.

    None too for what is malformed, after calling `on_malformed` (a counter). Never raises.
    """
    try:
        return _text(frame)
    except Malformed:
        if on_malformed is not None:
            on_malformed()
        return None


def parse_binary(frame: bytes, on_malformed: Callable[[], None] | None = None) -> Message | None:
    """The preview of a binary frame, else as `parse_text`."""
    try:
        return _binary(frame)
    except Malformed:
        if on_malformed is not None:
            on_malformed()
        return None


def _text(frame: str | bytes) -> Message | None:
    if len(frame) > MAX_FRAME:
        raise Malformed("too long")
    if isinstance(frame, str) and frame.startswith(_PASSED_BY):
        return None
    content = wire.loads(frame)
    if type(content) is not dict or type(content.get("type")) is not str:
        raise Malformed("no type")
    read = _READERS.get(content["type"])
    if read is None:
        return None
    data = content.get("data")
    if type(data) is not dict:
        raise Malformed("no data")
    return read(data)


def _prompt(data: Mapping[str, Any]) -> str:
    prompt_id = wire.identifier(data.get("prompt_id"))
    if prompt_id is None:
        raise Malformed("no prompt id")
    return prompt_id


def _status(data: Mapping[str, Any]) -> Message:
    execution = wire.mapping(wire.mapping(data.get("status")).get("exec_info"))
    remaining = wire.count(execution.get("queue_remaining"))
    if remaining is None:
        raise Malformed("no count")
    return QueueRemaining(remaining)


def _start(data: Mapping[str, Any]) -> Message:
    return Started(_prompt(data), wire.seconds(data.get("timestamp")))


def cached_nodes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes of an `execution_cached`, at most `MAX_NODES`."""
    nodes = data.get("nodes")
    if not isinstance(nodes, list):
        raise Malformed("no nodes")
    return tuple(node for node in map(wire.node_id, nodes[:MAX_NODES]) if node is not None)


def _cached(data: Mapping[str, Any]) -> Message:
    return Cached(_prompt(data), cached_nodes(data))


def _executing(data: Mapping[str, Any]) -> Message | None:
    prompt_id = wire.identifier(data.get("prompt_id"))
    if data.get("node") is None:
        return Idle(prompt_id)
    if prompt_id is None:
        # Sent to a socket that comes back while a node runs: which prompt's, it does not say.
        return None
    node = wire.node_id(data.get("display_node")) or wire.node_id(data.get("node"))
    if node is None:
        raise Malformed("no node")
    return NodeStarted(prompt_id, node)


def _progress(data: Mapping[str, Any]) -> Message:
    value, maximum = wire.count(data.get("value")), wire.count(data.get("max"))
    if value is None or maximum is None:
        raise Malformed("no count")
    return Stepped(_prompt(data), wire.node_id(data.get("node")), value, maximum)


def _executed(data: Mapping[str, Any]) -> Message:
    node = wire.node_id(data.get("display_node")) or wire.node_id(data.get("node"))
    if node is None:
        raise Malformed("no node")
    found = given(data.get("output"))
    return Output(_prompt(data), node, found.files, found.values, found.invalid)


def _success(data: Mapping[str, Any]) -> Message:
    return Succeeded(_prompt(data))


def _error(data: Mapping[str, Any]) -> Message:
    return failed(_prompt(data), data)


def _interrupted(data: Mapping[str, Any]) -> Message:
    return Interrupted(_prompt(data), wire.node_id(data.get("node_id")))


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Message | None]]] = {
    "status": _status,
    "execution_start": _start,
    "execution_cached": _cached,
    "executing": _executing,
    "progress": _progress,
    "executed": _executed,
    "execution_success": _success,
    "execution_error": _error,
    "execution_interrupted": _interrupted,
}


def _binary(frame: bytes) -> Message | None:
    if len(frame) > MAX_FRAME or len(frame) < 4:
        raise Malformed("of no size that a frame has")
    event = int.from_bytes(frame[:4], "big")
    if event not in {_PREVIEW, _PREVIEW_WITH_METADATA}:
        return None
    if len(frame) <= _TWO_NUMBERS.size:
        raise Malformed("no picture")
    second = _TWO_NUMBERS.unpack_from(frame)[1]
    if event == _PREVIEW:
        media_type = _MEDIA_TYPES.get(second)
        if media_type is None:
            raise Malformed("no image type")
        return PreviewFrame(None, media_type, frame[8:])
    start = 8 + second
    if second > _MAX_METADATA or start >= len(frame):
        raise Malformed("metadata beyond the frame")
    metadata = wire.mapping(wire.loads(frame[8:start]))
    image_type = metadata.get("image_type")
    if type(image_type) is not str or image_type not in _PICTURES:
        raise Malformed("no image type")
    return PreviewFrame(_prompt(metadata), image_type, frame[start:])
