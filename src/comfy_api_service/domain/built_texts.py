"""Texts that a graph puts together as it runs, told beforehand.

Without this `forbid` and `den` pass a list that has `forbidden`. ComfyUI's own text nodes are known here, as they run
(`comfy_extras/nodes_string.py`); what other nodes make of texts cannot be told.
"""

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import Any, Final

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of, is_link, links

MOST: Final = 1 << 20
"""Characters of all built texts of a graph."""
_VALUES: Final = frozenset({"PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt"})
_BUILDING: Final = frozenset(
    {"StringConcatenate", "StringReplace", "StringSubstring", "StringTrim", "CaseConverter"}
)
_CHANGES: Final[Mapping[tuple[str, str], Callable[[str], str]]] = {
    ("CaseConverter", "UPPERCASE"): str.upper,
    ("CaseConverter", "lowercase"): str.lower,
    ("CaseConverter", "Capitalize"): str.capitalize,
    ("CaseConverter", "Title Case"): str.title,
    ("StringTrim", "Both"): str.strip,
    ("StringTrim", "Left"): str.lstrip,
    ("StringTrim", "Right"): str.rstrip,
}


class Untellable(Exception):
    """What is cut from a text hangs on the run, or the texts are too long."""


def built_texts(graph: Graph) -> list[str]:
    """What the text nodes of a graph without circles give, each once. Raises `Untellable`."""
    if not any(class_of(node) in _BUILDING for node in graph.values()):
        return []
    known: dict[str, str | int] = {}
    built: dict[str, None] = {}
    left = MOST
    order = TopologicalSorter(
        {node_id: {link.source for link in links(node)} for node_id, node in graph.items()}
    )
    for node_id in order.static_order():
        node = graph.get(node_id)
        if node is None:
            continue
        given = {
            name: known.get(value[0]) if is_link(value) else value for name, value in inputs_of(node).items()
        }
        found = _output(class_of(node), given, left)
        if found is None:
            continue
        known[node_id] = found
        if isinstance(found, str) and class_of(node) in _BUILDING:
            built[found] = None
            left -= len(found)
            if left < 0:
                raise Untellable
    return list(built)


def _output(class_name: str, given: Mapping[str, Any], longest: int) -> str | int | None:
    """None if it is not known."""
    if class_name in _VALUES:
        value = given.get("value")
        return value if isinstance(value, str | int) else None
    if class_name == "StringConcatenate":
        a, b, between = given.get("string_a"), given.get("string_b"), given.get("delimiter", "")
        return between.join((a, b)) if _texts(a, b, between) else None
    text = given.get("string")
    if not isinstance(text, str):
        return None
    if class_name == "StringLength":
        return len(text)
    if class_name == "StringReplace":
        old, new = given.get("find"), given.get("replace")
        if not isinstance(old, str) or not isinstance(new, str):
            return None
        if len(text) + text.count(old) * len(new) > 2 * longest:
            raise Untellable
        return text.replace(old, new)
    if class_name == "StringSubstring":
        start, end = given.get("start"), given.get("end")
        if not isinstance(start, int) or not isinstance(end, int):
            raise Untellable
        return text[start:end]
    change = _CHANGES.get((class_name, str(given.get("mode"))))
    return None if change is None else change(text)


def _texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)
