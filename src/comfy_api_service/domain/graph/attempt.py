"""A graph as one attempt sends it: prefixes of its own, so that what it saves is its own.

ComfyUI answers an identical graph from its cache, with the earlier run's files, which may be gone by then.
A prefix that no other attempt has makes the save nodes run again, and nothing else.
`SaveImageWebsocket` sends its pictures by the socket, to whoever listens just then, and history knows nothing
of them: the same pictures are asked for as files, which can be fetched again.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of

OWN_FOLDER: Final = "cui"
"""In each folder of a backend: where it writes files for this service, each attempt's and each caller's apart."""
_PREFIX: Final = "filename_prefix"
_UNNAMED: Final = frozenset({"PreviewImage", "SaveImageWebsocket"})
"""Classes that take pictures as SaveImage does, without a prefix."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST: Final = 40


def for_attempt(graph: Graph, job_id: str, attempt: int) -> Graph:
    """The graph with save prefixes `cui/{job_id}/{attempt}/{last plain part of the original}`.

    A prefix that is a link is replaced too: the service alone says where files are written.
    `SaveImageWebsocket` becomes a `PreviewImage`. From the second attempt on both, which have no prefix, become
    a `SaveImage`. `attempt` counts from 1. The given graph stays as it is; untouched nodes are shared with it.
    """
    folder = f"{OWN_FOLDER}/{job_id}/{attempt}/"
    sent: dict[str, Mapping[str, Any]] = {}
    for node_id, node in graph.items():
        inputs = inputs_of(node)
        if _PREFIX in inputs:
            plain = _plain(inputs[_PREFIX])
            sent[node_id] = {**node, "inputs": {**inputs, _PREFIX: folder + plain}}
        elif attempt > 1 and class_of(node) in _UNNAMED:
            saved = {**inputs, _PREFIX: f"{folder}preview"}
            sent[node_id] = {**node, "class_type": "SaveImage", "inputs": saved}
        elif class_of(node) == "SaveImageWebsocket":
            sent[node_id] = {**node, "class_type": "PreviewImage"}
        else:
            sent[node_id] = node
    return sent


def _plain(prefix: object) -> str:
    """The prefix's last part, reduced to letters, digits, `_` and `-`: no folder, no `%date%`."""
    if not isinstance(prefix, str):
        return "output"
    last = re.split(r"[/\\]", prefix.rstrip("/\\"))[-1]
    return _UNSAFE.sub("_", last).strip("_-")[:_LONGEST] or "output"
