"""For tests of token buckets: a clock that is moved by hand, a link to a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stack import until

from comfy_api_service.redis_link.address import parse
from comfy_api_service.redis_link.link import RedisLink
from comfy_api_service.telemetry import Metrics


class HandClock:
    """Counts whole microseconds, so that no sum is rounded."""

    def __init__(self) -> None:
        self._microseconds = 1_700_000_000_000_000

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return self._microseconds / 1_000_000

    def pass_seconds(self, seconds: float) -> None:
        self._microseconds += round(seconds * 1_000_000)


@asynccontextmanager
async def open_link(url: str, *, up: bool = True) -> AsyncIterator[tuple[RedisLink, Metrics]]:
    metrics = Metrics()
    link = RedisLink(parse(url), metrics)
    task = asyncio.create_task(link.run())
    try:
        if up:
            await until(lambda: link.up)
        yield link, metrics
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await link.close()
