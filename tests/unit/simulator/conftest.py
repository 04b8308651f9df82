"""A simulator without waiting times and a client of it."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.simulator.client import FAST, Client

from comfy_api_service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(FAST) as running:
        yield running


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    async with Client(simulator.url) as made:
        yield made
