"""What is much work is done on another thread, whatever makes it much."""

import threading
from typing import Any

import pytest

from comfy_api_service.services.graphs import beside_the_loop

SMALL: dict[str, Any] = {
    str(n): {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}} for n in range(98)
}
LARGE: dict[str, dict[str, Any]] = {
    "one huge input": {"x": [[]] * 350_000},
    "few nodes, many links": {
        str(n): {"class_type": "SaveImage", "inputs": {f"i{i}": ["9", 0] for i in range(490)}}
        for n in range(98)
    },
    "a page of links": {"nodes": [{"id": 1}], "links": [[n, 1, 0, 1, 0, "INT"] for n in range(45_000)]},
    "a long text": {"1": {"class_type": "Text", "inputs": {"text": "x" * 100_000}}},
    "a long key": {"1": {"class_type": "Text", "inputs": {"x": {"x" * 100_000: 1}}}},
    "many nodes": {str(n): {"class_type": "SaveImage", "inputs": {}} for n in range(1000)},
}


async def test_small() -> None:
    assert await beside_the_loop(SMALL, threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize("name", LARGE)
async def test_large(name: str) -> None:
    assert await beside_the_loop(LARGE[name], threading.get_ident) != threading.get_ident()
