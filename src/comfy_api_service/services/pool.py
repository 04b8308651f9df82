"""The pool as this process last saw it: backends, inventories, load and measured durations.

Refreshed once a second and when a worker says that something changed; reading it costs nothing, so that a
submission needs no query of its own.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_api_service.db import backends, counters, timings
from comfy_api_service.db.base import Database, Reader
from comfy_api_service.db.requirements import inventory_of
from comfy_api_service.db.timings import Timing
from comfy_api_service.domain.backend import Backend, BackendState
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.domain.inventory import Catalogue, Inventory
from comfy_api_service.signals.base import Signals
from comfy_api_service.telemetry import Metrics

REFRESH_SECONDS = 1.0
FAR_JOBS = 50_000
"""More than arrive between two refreshes."""


@dataclass(frozen=True, slots=True)
class PoolView:
    backends: tuple[Backend, ...] = ()
    inventories: Mapping[str, Inventory] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=Catalogue.empty)
    load: counters.Load = field(default_factory=lambda: counters.Load(0, 0.0, 0, 0.0, None, {}))
    timings: Mapping[str, Timing] = field(default_factory=dict)
    timings_since: float = 0.0
    read_at: float = 0.0
    """Seconds of the monotonic clock."""

    @property
    def online(self) -> int:
        return sum(backend.state is BackendState.ONLINE for backend in self.backends)

    @property
    def complete(self) -> bool:
        """Whether every registered backend has told what it has."""
        return all(backend.inventory_hash is not None for backend in self.backends)

    def backend_name(self, backend_id: str | None) -> str | None:
        return next((one.name for one in self.backends if one.id == backend_id), None)


class Pool:
    def __init__(self, db: Database, signals: Signals, clock: Clock, metrics: Metrics) -> None:
        self._db = db
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._view = PoolView()
        self._changed = asyncio.Event()
        self._refreshing = asyncio.Lock()

    @property
    def view(self) -> PoolView:
        """The newest picture; at most a second or so old while the database answers."""
        return self._view

    def far_from(self, limit: int) -> bool:
        """Whether so few jobs wait that their number cannot reach a limit before the picture shows it."""
        current = self._clock.monotonic() - self._view.read_at < 3 * REFRESH_SECONDS
        return current and self._view.load.queued + FAR_JOBS < limit

    async def refresh(self) -> PoolView:
        """Read what is true now. One at a time: one that began earlier must not replace a newer picture."""
        async with self._refreshing:
            try:
                self._view = await self._db.read(self._read)
            except ServiceError:
                self._metrics.database_up.set(0)
                raise
            self._metrics.database_up.set(1)
            return self._view

    async def run(self) -> None:
        """Keep the picture fresh, until cancelled."""
        stop = self._signals.on_pool_change(self._changed.set)
        try:
            while True:
                with contextlib.suppress(ServiceError):  # the database is away: the last picture stays
                    await self.refresh()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_SECONDS):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            stop()

    async def _read(self, tx: Reader) -> PoolView:
        listed = await backends.every(tx)
        hashes = {backend.inventory_hash for backend in listed if backend.inventory_hash is not None}
        inventories = {one: await inventory_of(tx, one) for one in sorted(hashes)}
        learned, since = await timings.changed(tx, self._view.timings_since)
        unchanged = self._view.backends == tuple(listed) and self._view.inventories.keys() == hashes
        return PoolView(
            backends=tuple(listed),
            inventories=inventories,
            catalogue=self._view.catalogue if unchanged else _catalogue(listed, inventories),
            load=await counters.load(tx),
            timings=_newest(self._view.timings, learned),
            timings_since=since,
            read_at=self._clock.monotonic(),
        )


def _newest(known: Mapping[str, Timing], learned: Mapping[str, Timing]) -> Mapping[str, Timing]:
    """The means with what was learned since; the oldest are forgotten beyond the bound."""
    if all(known.get(key) == timing for key, timing in learned.items()):
        return known
    merged = {key: timing for key, timing in known.items() if key not in learned} | dict(learned)
    return dict(list(merged.items())[-timings.KEPT :])


def _catalogue(listed: list[Backend], inventories: Mapping[str, Inventory]) -> Catalogue:
    return Catalogue.of(
        {
            backend.name: inventories[backend.inventory_hash]
            for backend in listed
            if backend.inventory_hash is not None
        }
    )
