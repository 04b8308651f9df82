"""Texts that nodes put together, told before they run."""

import tracemalloc
from typing import Any

import pytest

from comfy_api_service.domain.built_texts import MOST, Untellable, built_texts


def graph(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Nodes by their numbers, from 0."""
    return {str(n): {"class_type": name, "inputs": inputs} for n, (name, inputs) in enumerate(nodes)}


def end(text: object) -> tuple[str, dict[str, Any]]:
    return "CLIPTextEncode", {"text": text, "clip": ["99", 0]}


@pytest.mark.parametrize(
    "nodes",
    [
        (("StringConcatenate", {"string_a": "forbid", "string_b": "den", "delimiter": ""}),),
        (("StringConcatenate", {"string_a": "forbid", "string_b": "den"}),),
        (("StringConcatenate", {"string_a": "for", "string_b": "den", "delimiter": "bid"}),),
        (("StringReplace", {"string": "f0rbidden", "find": "0", "replace": "o"}),),
        (("StringSubstring", {"string": "unforbiddenly", "start": 2, "end": 11}),),
        (
            ("StringConcatenate", {"string_a": ["1", 0], "string_b": ["2", 0], "delimiter": ""}),
            ("PrimitiveString", {"value": "forbid"}),
            ("StringTrim", {"string": ["3", 0], "mode": "Both"}),
            ("PrimitiveStringMultiline", {"value": " den "}),
        ),
        (
            ("StringSubstring", {"string": "forbidden?", "start": ["1", 0], "end": ["2", 0]}),
            ("PrimitiveInt", {"value": 0}),
            ("StringLength", {"string": "123456789"}),
        ),
        (
            ("StringReplace", {"string": ["1", 0], "find": "X", "replace": "forbidden"}),
            ("CaseConverter", {"string": "x", "mode": "UPPERCASE"}),
        ),
    ],
)  # fmt: skip
def test_a_text_put_together(nodes: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    assert "forbidden" in built_texts(graph(*nodes, end(["0", 0])))


def test_a_graph_that_puts_nothing_together() -> None:
    assert built_texts(graph(end("fog"), ("PrimitiveString", {"value": "rain"}))) == []


def test_what_other_nodes_say_is_not_known() -> None:
    joined = ("StringConcatenate", {"string_a": "fog, ", "string_b": ["1", 0], "delimiter": ""})
    assert built_texts(graph(joined, ("SomeCaptioner", {"image": ["9", 0]}))) == []


def test_a_cut_that_hangs_on_the_run_cannot_be_told() -> None:
    cut = ("StringSubstring", {"string": "unforbidden", "start": ["1", 0], "end": 11})
    with pytest.raises(Untellable):
        built_texts(graph(cut, ("GetImageSize", {"image": ["9", 0]})))


def test_texts_that_grow_are_not_made() -> None:
    text = "x" * 10_000
    tracemalloc.start()
    with pytest.raises(Untellable):
        built_texts(graph(("StringReplace", {"string": text, "find": "", "replace": text})))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST  # it would be 100 MB
    joins: list[tuple[str, dict[str, Any]]] = [
        ("StringConcatenate", {"string_a": text, "string_b": text, "delimiter": ""})
    ]
    joins += [
        ("StringConcatenate", {"string_a": [str(n), 0], "string_b": [str(n), 0], "delimiter": ""})
        for n in range(30)
    ]
    with pytest.raises(Untellable):
        built_texts(graph(*joins))
