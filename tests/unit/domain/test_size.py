"""Counting a document's values: exact up to the bound, and no further."""

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_api_service.domain.checking.size import count_values


@pytest.mark.parametrize(
    ("document", "values"),
    [
        ({}, 1),
        ({"a": 1}, 2),
        ({"a": [1, [2, None]], "b": {"c": "text"}}, 8),
        ([[]] * 5, 6),
        ("x" * 1000, 1),
    ],
)
def test_values(document: Any, values: int) -> None:
    assert count_values(document, 100) == values


def test_texts_and_keys_count_by_their_length() -> None:
    assert count_values({"a": "x" * 99, "b": "x" * 100}, 100, letters=50) == 3 + 1 + 2
    assert count_values({"k" * 200: 0}, 100, letters=50) == 2 + 4


class Endless(list[Any]):
    """Says that it is long, and must not be walked."""

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("walked")


def test_the_walk_ends_at_the_bound() -> None:
    assert count_values({"a": Endless()}, 100) > 100
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert 100 < count_values(deep, 100) <= 102
