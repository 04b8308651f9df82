from collections.abc import Iterator

import pytest
from tests.support.valkey import Valkey, valkey


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for all tests of a process that leave it as it is."""
    with valkey() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server for a test that kills it."""
    with valkey() as server:
        yield server
