"""Events at an even pace, for both servers of the listeners' benchmark alike."""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

TICK_SECONDS: Final = 0.001


def stamp() -> str:
    """The moment of publishing, for the listener to subtract: monotonic nanoseconds."""
    return str(time.monotonic_ns())


async def evenly(rate: float, seconds: float, publish: Callable[[int], None]) -> int:
    """Call `publish` with 0, 1, 2 …, `rate` times a second; what is late is made up for at once."""
    total = int(rate * seconds)
    began, count = time.monotonic(), 0
    while count < total:
        due = min(total, int((time.monotonic() - began) * rate) + 1)
        while count < due:
            publish(count)
            count += 1
        await asyncio.sleep(TICK_SECONDS)
    return total


def fullest_transport() -> int:
    """Bytes that wait in this process for the connection that takes the least."""
    protocols = [one for one in gc.get_objects() if isinstance(one, WebSocketsSansIOProtocol)]
    return max((_waiting(one) for one in protocols), default=0)


def _waiting(protocol: Any) -> int:
    transport = protocol.transport
    return 0 if transport is None or transport.is_closing() else int(transport.get_write_buffer_size())
