from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.api import Client, connected, serving
from tests.support.stack import FAST, online, running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator
from comfy_api_service.telemetry.context import completed


@pytest.fixture(autouse=True)
def _on_either_database(dialect: str) -> None:
    """What reads and writes runs on both; what is about HTTP alone is marked `sqlite`."""


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(FAST) as simulator:
        yield simulator


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url) as service:
        await online(service)
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    async with connected(service.app) as client:
        yield client


@pytest.fixture
async def lonely(tmp_path: Path) -> AsyncIterator[Client]:
    """A service whose one backend does not answer."""
    async with running(tmp_path, "http://127.0.0.1:9") as service, connected(service.app) as client:
        yield client


@pytest.fixture
async def url(service: Service) -> AsyncIterator[str]:
    async with serving(service.app) as url:
        yield url


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Everything that is logged, as structlog's entries."""
    with structlog.testing.capture_logs(processors=[completed]) as entries:
        yield entries
