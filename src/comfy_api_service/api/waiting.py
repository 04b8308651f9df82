"""A request that waits for something: until it is there, its time is up, the caller leaves, or the service stops."""

import asyncio
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, TypeVar

from starlette.requests import Request

from comfy_api_service.api.state import state_of

T = TypeVar("T")


class Away(Enum):
    """Why there is nothing to give."""

    LEFT = auto()
    DRAINING = auto()


async def wait_for_caller(request: Request, work: Coroutine[Any, Any, T]) -> T | Away:
    """What `work` gives, unless the caller leaves or the service stops before; then `work` is canceled."""
    stopped = asyncio.get_running_loop().create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    forget = state_of(request).draining.on_begin(stop)
    working = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, left, stopped), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Away.LEFT if left.done() else Away.DRAINING
    finally:
        forget()
        await _cancel(left)
        await _cancel(working)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
