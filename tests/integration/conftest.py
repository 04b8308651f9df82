from collections.abc import Iterator

import pytest
from tests.support.crossing import cross
from tests.support.valkey import Valkey, valkey


@pytest.fixture(scope="session")
def _one_valkey() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def shared_valkey(_one_valkey: Valkey) -> Valkey:
    """One server, empty, for all tests of a process that leave it alive."""
    _one_valkey.command("FLUSHALL")
    return _one_valkey


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server for a test that kills it."""
    with valkey() as server:
        yield server


@pytest.fixture(params=["memory", "valkey"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals within the process, or all of them through a server."""
    if request.param == "valkey":
        cross(monkeypatch, request.getfixturevalue("shared_valkey").url)
