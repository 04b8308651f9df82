"""Whether a graph that a backend shows is the one that it was sent.

ComfyUI converts values in place before it runs them ("20" and 20.7 become 20 where a whole number is taken), adds
keys of its own to nodes, and shows the outcome in its history: that is no change. Another node, class, link or
value is one.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of, is_link

_WRAPPED: Final = "__value__"
_YES: Final = frozenset({"true", "1", "yes", "on"})


def is_same_graph(sent: Graph, shown: Mapping[str, Any], free: Collection[tuple[str, str]] = ()) -> bool:
    """True if `shown` has the nodes, classes, links and values of `sent`.

    `free`: inputs, as (node id, name), whose values the backend was told otherwise than `sent` says.
    """
    if sent.keys() != shown.keys():
        return False
    return all(_same_node(node_id, node, shown[node_id], free) for node_id, node in sent.items())


def _same_node(
    node_id: str, sent: Mapping[str, Any], shown: object, free: Collection[tuple[str, str]]
) -> bool:
    if not isinstance(shown, dict) or class_of(sent) != shown.get("class_type"):
        return False
    given, told = inputs_of(sent), shown.get("inputs")
    if not isinstance(told, dict) or given.keys() != told.keys():
        return False
    return all((node_id, name) in free or _same(value, told[name]) for name, value in given.items())


def _same(sent: Any, shown: Any) -> bool:
    """Whether a value is what was sent, or what ComfyUI makes of it."""
    if sent == shown:
        return True
    if isinstance(sent, dict) and _WRAPPED in sent:
        return _same(sent[_WRAPPED], shown)
    if is_link(sent) or is_link(shown):
        return False
    if isinstance(shown, str):
        return str(sent) == shown
    if isinstance(shown, bool):
        return shown == (sent.strip().lower() in _YES if isinstance(sent, str) else bool(sent))
    if not isinstance(shown, int | float) or not isinstance(sent, int | float | str):
        return False
    try:
        number = float(sent)
    except (ValueError, OverflowError):
        return False
    if isinstance(shown, int):
        return math.isfinite(number) and math.trunc(number) == math.trunc(float(shown))
    return number == shown
