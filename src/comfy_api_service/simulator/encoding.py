"""JSON as a ComfyUI server writes it, fast where it can be."""

import json
from typing import Any

import orjson


def encode(value: Any) -> bytes:
    """JSON bytes; numbers beyond 64 bits and NaN go the slow way, which writes them as Python does."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return json.dumps(value).encode()
