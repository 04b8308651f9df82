"""`progress_state`, read without parsing it.

It is sent at each step and, on newer servers, with every node of the graph each time: with previews the bulk
of all text. Its shape is known, so counting and one search in the string find what is wanted: 17 µs instead
of 84 for 100 nodes. What does not look as known is parsed.
"""

import re
from typing import Any, Final

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.message_types import NodesProgress

PREFIX: Final = '{"type": "progress_state", "data": {"prompt_id": "'
_RUNNING: Final = '"state": "running"'
_FINISHED: Final = '"state": "finished"'
_STATE: Final = '"state": "'
_NUMBER: Final = r"(-?\d{1,17}(?:\.\d{1,17})?)"
_BEFORE: Final = re.compile(rf'\{{"value": {_NUMBER}, "max": {_NUMBER}, $')
_AFTER: Final = re.compile(
    r', "node_id": "[^"\\]{1,256}", "prompt_id": "[^"\\]{1,64}", "display_node_id": "([^"\\]{1,256})"'
)


def scan(frame: str) -> NodesProgress | None:
    """The progress, found by search in a frame that begins with `PREFIX`; None if it must be parsed.

    A quotation mark inside a JSON string has a backslash before it, so no node's name can look like a state.
    """
    end = frame.find('"', len(PREFIX))
    prompt_id = wire.identifier(frame[len(PREFIX) : end]) if end > 0 else None
    if prompt_id is None or "\\" in prompt_id or not frame.endswith("}}}}"):
        return None
    total = frame.count(_STATE)
    finished = frame.count(_FINISHED)
    at = frame.rfind(_RUNNING)
    if at < 0:
        return NodesProgress(prompt_id, None, 0, 0, finished, total)
    # The number of a node's steps stands just before its state, its names just after.
    before = _BEFORE.search(frame, max(0, at - 64), at)
    after = _AFTER.match(frame, at + len(_RUNNING))
    if before is None or after is None:
        return None
    return NodesProgress(
        prompt_id, after[1], float(before[1]), float(before[2]), finished, total
    )  # fmt: skip


def read(prompt_id: str, data: Any) -> NodesProgress:
    """The same from the parsed `data`."""
    running: str | None = None
    value = maximum = 0.0
    finished = total = 0
    for node_id, node in wire.mapping(wire.mapping(data).get("nodes")).items():
        known = wire.mapping(node)
        state = known.get("state")
        total += 1
        if state == "finished":
            finished += 1
        elif state == "running":
            running = wire.node_id(known.get("display_node_id")) or wire.node_id(node_id)
            value = wire.number(known.get("value")) or 0.0
            maximum = wire.number(known.get("max")) or 0.0
    return NodesProgress(prompt_id, running, float(value), float(maximum), finished, total)
