"""Which models a simulated server has in memory. Loading takes time and counts."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from .record import Record
from .settings import SimulatorSettings


class Shelf:
    """The resident models, least recently used first."""

    def __init__(
        self, settings: SimulatorSettings, record: Record, pause: Callable[[], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._record = record
        self._pause = pause
        self._resident: OrderedDict[str, None] = OrderedDict()

    @property
    def resident(self) -> list[str]:
        return list(self._resident)

    async def need(self, model: str) -> None:
        """Wait until the model is loaded. Loading can't be interrupted, as on a real server."""
        if model in self._resident:
            self._resident.move_to_end(model)
            return
        while len(self._resident) >= max(1, self._settings.resident_models):
            self._resident.popitem(last=False)
        if self._settings.seconds_per_load > 0:
            await asyncio.sleep(self._settings.seconds_per_load)
        await self._pause()
        self._resident[model] = None
        self._record.loaded(model)

    def unload(self) -> None:
        self._resident.clear()

    @property
    def memory_used(self) -> int:
        return len(self._resident) * self._settings.model_bytes
