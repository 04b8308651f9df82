"""Background work that must not end: a fault is told, and the work begins anew."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()

PAUSE_SECONDS = 1.0


async def forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until cancelled; whatever it raises is logged, and it is begun again after a pause."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background_work_failed", work=name)
        await asyncio.sleep(PAUSE_SECONDS)
