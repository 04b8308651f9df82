from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.cli.client import generate
from comfy_api_service.cli.faults import Fault


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("detail.safetensors", {"name": "detail.safetensors"}),
        ("detail.safetensors:0.6", {"name": "detail.safetensors", "weight": 0.6}),
        ("detail:-1", {"name": "detail", "weight": -1.0}),
        ("C:detail", {"name": "C:detail"}),
        ("a:b:0.5", {"name": "a:b", "weight": 0.5}),
    ],
)
def test_loras(given: str, found: dict[str, Any]) -> None:
    assert generate.loras([given]) == [found]


def test_labels() -> None:
    assert generate.labels(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(Fault, match="no value"):
        generate.labels(["alone"])


@pytest.mark.parametrize(
    ("name", "found"),
    [("a.jpg", "jpeg"), ("a.JPEG", "jpeg"), ("a.webp", "webp"), ("a.png", None), ("a", None)],
)
def test_the_suffix_chooses_the_format(name: str, found: str | None) -> None:
    assert generate.format_of(Path(name)) == found
