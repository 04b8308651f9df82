"""Reading what a server sent: JSON that may be anything, numbers and names of bounded size.

Nothing is believed: each function gives the value in its type and size, or None.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_ID: Final = 64
"""Characters of a prompt id; a UUID has 36."""
MAX_NODE: Final = 256
"""Characters of a node id; those of grown sub-graphs are chains of numbers."""


class Malformed(ValueError):
    """What came is not what the protocol says."""


def loads(raw: str | bytes) -> Any:
    """The JSON value. Raises Malformed.

    ComfyUI writes with Python's `json`, so NaN, Infinity (bounds of some custom nodes) and unpaired
    surrogates do come: what orjson refuses is read again by the standard library, those numbers as None.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as fault:
        raise Malformed("not JSON") from fault


def _no_number(_: str) -> None:
    return None


def mapping(value: object) -> Mapping[str, Any]:
    """The JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def identifier(value: object, longest: int = MAX_ID) -> str | None:
    """A printable name of 1…`longest` characters, or None."""
    if type(value) is str and 0 < len(value) <= longest and value.isprintable():
        return value
    return None


def node_id(value: object) -> str | None:
    """A node's id, or None; some senders write it as a number."""
    if type(value) is int and 0 <= value < 10**9:
        return str(value)
    return identifier(value, MAX_NODE)


def number(value: object) -> float | None:
    """A finite number that JSON writers take (integers of 64 bits), or None; `true` is none."""
    if type(value) is int:
        return value if -(1 << 63) <= value < 1 << 64 else None
    if type(value) is float:
        return value if math.isfinite(value) else None
    return None


def count(value: object) -> int | None:
    """A whole number 0…2⁵³, or None."""
    found = number(value)
    return int(found) if found is not None and 0 <= found <= 1 << 53 else None


def seconds(milliseconds: object) -> float | None:
    """A timestamp of ComfyUI (milliseconds since the epoch) in seconds, or None."""
    found = number(milliseconds)
    return found / 1000 if found is not None and 0 < found < 1e14 else None


def text(value: object, longest: int) -> str:
    """The string, cut at `longest` characters, with what UTF-8 cannot hold replaced; "" if it is none."""
    if type(value) is not str:
        return ""
    cut = value[:longest]
    try:
        cut.encode()
    except UnicodeEncodeError:
        return cut.encode("utf-8", "replace").decode()
    return cut
