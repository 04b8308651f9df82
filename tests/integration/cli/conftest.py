import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.integration.cli.service import Server, serving

Until = Callable[..., Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Poll a condition, with a limit in seconds."""

    async def wait(condition: Callable[[], object], limit: float = 20.0) -> None:
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as fake:
        yield fake
