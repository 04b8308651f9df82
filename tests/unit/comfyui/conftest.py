"""The recordings of two real servers, one at a time, for tests that must hold for each."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "fixtures" / "recordings"
FILES = sorted(FOLDER.glob("*/*.json"))


@pytest.fixture(scope="session")
def recordings() -> dict[str, list[dict[str, Any]]]:
    """`version/scenario` → events."""
    return {f"{file.parent.name}/{file.stem}": json.loads(file.read_text()) for file in FILES}


@pytest.fixture(params=[f"{file.parent.name}/{file.stem}" for file in FILES])
def recording(request: pytest.FixtureRequest, recordings: dict[str, list[dict[str, Any]]]) -> Any:
    return recordings[request.param]


@pytest.fixture(params=["0.3.64", "0.8.0"])
def version(request: pytest.FixtureRequest) -> Any:
    return request.param
