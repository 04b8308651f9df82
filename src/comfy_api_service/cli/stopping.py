"""Stop signals: the first one drains, the second one ends the process at once.

Ending at once is safe: every job is on the disk, and a local ComfyUI is stopped by its keeper.
"""

import asyncio
import os
import signal
from types import TracebackType
from typing import Self

from comfy_api_service.cli.output import say

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignals:
    """`async with StopSignals() as stop: await stop.wait()`."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    async def wait(self) -> None:
        await self._asked.wait()

    def _receive(self, number: int) -> None:
        if self._asked.is_set():
            say("stopped at once")
            os._exit(128 + number)
        self._asked.set()
