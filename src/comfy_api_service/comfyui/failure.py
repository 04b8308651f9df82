"""`execution_error`: which node failed and why, in words that may be shown."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.cleaning import clean
from comfy_api_service.comfyui.message_types import Failed

_TYPE: Final = re.compile(r"[A-Za-z_][\w.]{0,127}")
_MEMORY_TYPES: Final = ("OutOfMemoryError", "MemoryError", "OOM_EXCEPTION")
_MEMORY: Final = re.compile(
    r"out of memory|(?:can't|cannot|could not|unable to|failed to) allocate|not enough memory"
    r"|allocation on device|cublas_status_alloc_failed|insufficient memory",
    re.IGNORECASE,
)
_MAX_TEXTS: Final = 64
_MAX_TEXT: Final = 32_768


def failed(prompt_id: str, data: Mapping[str, Any]) -> Failed:
    """What `data` of an `execution_error` says, without `traceback` and `current_inputs`.

    Nodes put their inputs into their messages; each text among `current_inputs` is taken out of it.
    """
    raw = data.get("exception_message")
    kind = data.get("exception_type")
    exception_type = kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else ""
    return Failed(
        prompt_id=prompt_id,
        node_id=wire.node_id(data.get("node_id")),
        node_type=clean(data.get("node_type"), longest=128),
        exception_type=exception_type,
        message=clean(raw, without=_texts(data.get("current_inputs"))),
        out_of_memory=exception_type.endswith(_MEMORY_TYPES)
        or (isinstance(raw, str) and _MEMORY.search(raw[:16_384]) is not None),
    )


def _texts(inputs: object) -> Iterator[str]:
    """The texts among a node's inputs, which are lists of values, a bounded number of them."""
    seen = 0
    for value in wire.mapping(inputs).values():
        for entry in value if isinstance(value, list) else (value,):
            seen += 1
            if seen > _MAX_TEXTS:
                return
            if isinstance(entry, str) and len(entry) <= _MAX_TEXT:
                yield entry
