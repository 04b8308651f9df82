"""How long the texts become that a graph puts together while it runs: of small ones ComfyUI would make gigabytes."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from comfy_api_service.domain.checking.links import Wiring, is_meant
from comfy_api_service.domain.checking.rules import Findings, Rules
from comfy_api_service.domain.errors import Code

_VALUES: Final = frozenset({"PrimitiveString", "PrimitiveStringMultiline"})
_PASSES: Final = frozenset({"StringSubstring", "StringTrim", "CaseConverter"})
_GROWN_BY_CASE: Final = 3
"""Some letters are three when they are written large."""


class _Text(NamedTuple):
    longest: int
    """Characters, at most."""
    known: str | None = None
    """The text itself, of what the graph says in full."""


def check_texts(
    graph: Mapping[str, Mapping[str, Any]], wiring: Wiring, rules: Rules, findings: Findings
) -> None:
    """Finds the node where all built texts together become too long. The graph has no circles."""
    texts: dict[str, _Text] = {}
    total = 0
    for node_id in wiring.order:
        node = graph.get(node_id)
        if node is None:
            continue
        name, inputs = node["class_type"], node["inputs"]
        text = _built(name, inputs, texts, rules.max_text)
        if text is None:
            continue
        texts[node_id] = text
        total += 0 if name in _VALUES else text.longest
        if total > rules.max_built:
            findings.add(
                f"the texts that are put together may exceed {rules.max_built} characters",
                node_id,
                name,
                code=Code.COST_LIMIT_EXCEEDED,
                bound=rules.max_built,
            )
            return


def _built(name: str, inputs: Mapping[str, Any], texts: Mapping[str, _Text], unknown: int) -> _Text | None:
    """None for a node that builds no text; `unknown` is the length of what another gives."""

    def given(key: str) -> _Text:
        value = inputs.get(key, "")
        if is_meant(value):
            return texts.get(value[0], _Text(unknown))
        text = value if isinstance(value, str) else str(value)
        return _Text(len(text), text)

    if name in _VALUES:
        return given("value")
    if name == "StringConcatenate":
        return _Text(sum(given(key).longest for key in ("string_a", "string_b", "delimiter")))
    if name == "StringReplace":
        return _replaced(given("string"), given("find"), given("replace"))
    if name in _PASSES:
        return _Text(given("string").longest * (_GROWN_BY_CASE if name == "CaseConverter" else 1))
    return None


def _replaced(text: _Text, old: _Text, new: _Text) -> _Text:
    if text.known is not None and old.known is not None:
        times = text.known.count(old.known)
    elif old.known:
        times = text.longest // len(old.known)
    else:  # an empty one is found between all letters
        times = text.longest + 1
    return _Text(text.longest + times * new.longest)
