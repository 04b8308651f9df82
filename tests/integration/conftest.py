"""Servers for all tests of a process, empty for each of them; and servers for one test that kills them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.crossing import cross
from tests.support.s3 import S3Server, s3_server
from tests.support.valkey import Valkey, valkey

from comfy_api_service.domain.ids import new_job_id
from comfy_api_service.storage.s3 import Bucket


@pytest.fixture(scope="session")
def _one_valkey() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "root") as server:
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


@pytest.fixture
def own_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that one test may kill and stop."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with s3_server(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def bucket(s3_store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return s3_store.bucket(new_job_id().lower().replace("_", "-"))
