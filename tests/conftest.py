"""For all tests."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgres import FAST, PostgresServer, server
from tests.support.schema import DIALECTS, bound, copied, prepare

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts a command in the background makes it ignore interrupts, and all of its children too:
    # those that are interrupted here would not notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What asks for `dialect` runs on both databases, unless it is marked `sqlite`."""
    if "dialect" in metafunc.fixturenames:
        once = metafunc.definition.get_closest_marker("sqlite") is not None
        metafunc.parametrize("dialect", DIALECTS[:1] if once else DIALECTS, indirect=True)


@pytest.fixture(autouse=True)
def nobody_goes_on_proving() -> Iterator[None]:
    """A worker that a test leaves behind would write into the output of those that come after it."""
    before = set(threading.enumerate())
    yield
    left = [one for one in threading.enumerate() if one.name == "lease" and one not in before]
    assert not left, "a worker of this test was not stopped"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test process."""
    with server(**FAST) as made:
        prepare(made)
        yield made


@pytest.fixture
def dialect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Which database what runs in `tmp_path` uses."""
    name: str = request.param
    if name == "sqlite":
        yield name
        return
    with copied(request.getfixturevalue("postgres")) as url, bound(tmp_path, url):
        yield name
