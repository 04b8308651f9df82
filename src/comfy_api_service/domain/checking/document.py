"""Reading a caller's document as a graph: its form alone, whatever its classes are.

What comes out is a copy of plain dicts and lists that JSON, PostgreSQL and ComfyUI can hold, of bounded size.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from comfy_api_service.domain.checking.rules import Findings, Rules
from comfy_api_service.domain.checking.size import count_values
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import canonical

Nodes = dict[str, dict[str, Any]]

_NODE_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:-]{0,63}")
_NOT_ID: Final = re.compile(r"[^A-Za-z0-9_:-]")
_MAX_NAME: Final = 256
_MAX_INPUTS: Final = 500
_MAX_INT: Final = 2**64
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_PAGE_FORM: Final = ("nodes", "links")


class _Bad(Exception):
    """A value that no graph can hold; its text says why."""


def read(
    document: object, rules: Rules, is_file: Callable[[str, str], bool], findings: Findings
) -> Nodes | None:
    """The nodes that are well formed; None if the document is no graph at all, or too large to look at.

    `is_file(class, input)` tells where data URLs may stand.
    """
    if not isinstance(document, Mapping):
        findings.add("a graph is an object of nodes")
        return None
    if not document:
        findings.add("the graph has no nodes")
        return None
    if all(isinstance(document.get(key), list) for key in _PAGE_FORM):
        findings.add("this is the form of ComfyUI's page, not of its API; export it in API form")
        return None
    if len(document) > rules.max_nodes:
        findings.add(
            f"the graph has {len(document)} nodes, more than {rules.max_nodes}",
            value=len(document),
            bound=rules.max_nodes,
        )
        return None
    if count_values(document, rules.max_values) > rules.max_values:
        findings.add(f"the graph has more than {rules.max_values} values", bound=rules.max_values)
        return None
    reader = _Reader(rules, is_file, findings)
    nodes = {}
    for node_id, node in document.items():
        read_node = reader.node(node_id, node)
        if read_node is not None:
            nodes[node_id] = read_node
    if _size(nodes, is_file) > rules.max_bytes:
        findings.add(f"the graph is larger than {rules.max_bytes} bytes", bound=rules.max_bytes)
        return None
    return nodes


class _Reader:
    def __init__(self, rules: Rules, is_file: Callable[[str, str], bool], findings: Findings) -> None:
        self._rules = rules
        self._is_file = is_file
        self._findings = findings

    def node(self, node_id: object, node: object) -> dict[str, Any] | None:
        """A copy of class and inputs, or None; values that are bad are left out, each with its problem."""
        add = self._findings.add
        if not isinstance(node_id, str) or not _NODE_ID.fullmatch(node_id):
            told = _NOT_ID.sub("?", node_id[:64]) if isinstance(node_id, str) else None
            add("a node's id is 1 to 64 letters, digits, _, - or :", told)
            return None
        if not isinstance(node, Mapping):
            add("a node is an object with class_type and inputs", node_id)
            return None
        name = node.get("class_type")
        if not isinstance(name, str) or not _is_name(name):
            add("class_type is absent, or no name of a node class", node_id)
            return None
        given = node.get("inputs", {})
        if not isinstance(given, Mapping) or len(given) > _MAX_INPUTS:
            add(f"inputs is not an object of at most {_MAX_INPUTS} values", node_id, name)
            return None
        inputs = {}
        for key, value in given.items():
            if not isinstance(key, str) or not _is_name(key):
                add(
                    "the name of an input is empty, too long, or has characters that no name has",
                    node_id,
                    name,
                )
                continue
            is_file = self._is_file(name, key)
            try:
                inputs[key] = self._value(value, self._longest(value, is_file=is_file), 0)
            except _Bad as bad:
                code = Code.INVALID_INPUT if is_file and isinstance(value, str) else Code.INVALID_GRAPH
                add(str(bad), node_id, name, key, code=code)
        return {"class_type": name, "inputs": inputs}

    def _longest(self, value: object, *, is_file: bool) -> int:
        is_data = is_file and isinstance(value, str) and value.startswith("data:")
        return self._rules.max_data if is_data else self._rules.max_text

    def _value(self, value: object, longest: int, depth: int) -> Any:
        """A copy of the value. Raises _Bad."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(value, longest)
        if isinstance(value, int | float):
            return _number(value)
        if depth >= self._rules.max_depth:
            raise _Bad(f"the value is nested deeper than {self._rules.max_depth}")
        if isinstance(value, list):
            return [self._value(item, longest, depth + 1) for item in value]
        if isinstance(value, Mapping):
            return {self._key(key): self._value(item, longest, depth + 1) for key, item in value.items()}
        raise _Bad("the value is not of JSON")

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise _Bad("the value is not of JSON")
        return _text(key, self._rules.max_text)


def _text(value: str, longest: int) -> str:
    if len(value) > longest:
        raise _Bad(f"the text is longer than {longest} characters")
    if "\x00" in value or (not value.isascii() and _SURROGATE.search(value)):
        raise _Bad("the text has characters that cannot be stored (NUL, unpaired surrogates)")
    return str(value)


def _number(value: float) -> float:
    if isinstance(value, int):
        if not -_MAX_INT < value < _MAX_INT:
            raise _Bad("the number needs more than 64 bits")
        return int(value)
    if not math.isfinite(value):
        raise _Bad("NaN and infinity are no numbers of JSON")
    return float(value)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and bool(name.strip())


def _size(nodes: Nodes, is_file: Callable[[str, str], bool]) -> int:
    """Bytes of the canonical JSON without the data URLs."""
    plain: dict[str, Any] = {}
    for node_id, node in nodes.items():
        name, inputs = node["class_type"], node["inputs"]
        large = [
            key
            for key, value in inputs.items()
            if isinstance(value, str) and value.startswith("data:") and is_file(name, key)
        ]
        plain[node_id] = {**node, "inputs": inputs | dict.fromkeys(large, "")} if large else node
    return len(canonical(plain))
