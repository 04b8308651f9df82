"""The list of terms: spelling tricks that pass no more, harmless words that do; `tests/data/block_list.jsonl`."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.domain.block_list import BlockList

TERMS = """\
# what the corpus is held against
forbidden
Two  Words
*wild*
pre*
*fix
na\u00efve
\u88f8*
Stra\u00dfe
C3PO
\u0939\u093f\u0928\u094d\u0926\u0940
"""
CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "block_list.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
LISTED = BlockList.read(TERMS.splitlines())


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["why"])
def test_the_corpus(case: Any) -> None:
    assert LISTED.has_any(case["text"]) is case["found"]
    assert LISTED.has_any(f"a \u00e4 {case['text']}, sky") is case["found"]


def test_every_fault_is_named_by_its_line_and_none_shows_a_term() -> None:
    lines = ["fine", "/secret+/", "sec*ret", "", "# no term", "***", "!?", "x" * 201, "fine too"]
    with pytest.raises(ValueError, match="line 2") as caught:
        BlockList.read(lines)
    told = str(caught.value)
    assert [f"line {number}:" in told for number in range(1, 10)] == [False, True, True] + 2 * [False] + [
        True, True, True, False,
    ]  # fmt: skip
    assert "sec" not in told


def test_many_faults_are_counted() -> None:
    with pytest.raises(ValueError, match="and 90 more"):
        BlockList.read(["!"] * 100)
    with pytest.raises(ValueError, match="more than"):
        BlockList.read(f"term{n}" for n in range(20_001))


def test_an_empty_list_finds_nothing() -> None:
    assert not BlockList.read(["# nothing yet", ""]).has_any("whatever")


def test_marks_in_great_number_hide_nothing() -> None:
    above, below = "\u0301" * 3_000, "\u0323" * 3_000
    assert LISTED.has_any(f"for{above}{below}bidden")
    apart = "".join(mark * 29 + "\u200d" for mark in ("\u05b8", "\u05b0") for _ in range(100))
    assert LISTED.has_any(f"{apart} forbidden")
    assert not LISTED.has_any(f"harm{above}{below}less")
