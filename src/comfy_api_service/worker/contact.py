"""One backend's health and inventory: asked regularly, written down for the pool.

Says when the backend went away, and for how long; what follows for its runs is the driver's business.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import structlog

from comfy_api_service.comfyui import inventory as wire_inventory
from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, PromptRefused, Unreachable
from comfy_api_service.comfyui.views import SystemStats
from comfy_api_service.db import backends, lanes
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.requirements import store_inventory
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.breaker import CLOSED, Breaker, BreakerState
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.signals.base import Signals
from comfy_api_service.telemetry import BackendFigures
from comfy_api_service.telemetry.metrics import BREAKER_STATES
from comfy_api_service.worker.canary import Canary

log = structlog.get_logger()

HEALTHY_SECONDS: Final = 5.0
"""Between two questions to a backend that answers."""
AWAY_SECONDS: Final = 1.0
"""Between two questions to one that does not."""
INVENTORY_SECONDS: Final = 60.0
"""Between two readings of what it has: models come and go while it runs."""
SUSPICION_SECONDS: Final = 60.0
"""How long a backend that ran nothing, or stalled, gets no work if no canary can be sent there."""


class Contact:
    def __init__(
        self,
        backend_id: str,
        name: str,
        worker_id: str,
        client: ComfyClient,
        db: Database,
        signals: Signals,
        clock: Clock,
        figures: BackendFigures,
        *,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when the backend may take work again, or no more."""
        self.backend_id = backend_id
        self.name = name
        self._worker_id = worker_id
        self.inventory: Inventory | None = None
        self.state = BackendState.OFFLINE
        self.away_since: float | None = clock.monotonic()
        self.refuses = False
        """Whether it refused the last connection: nothing listens there, while a time-out proves nothing."""
        self.breaker: Breaker = CLOSED
        self._client = client
        self._db = db
        self._signals = signals
        self._clock = clock
        self._figures = figures
        self._changed = changed
        self._inventory_at: float | None = None
        self._written: tuple[Any, ...] | None = None
        self._suspect_since: float | None = None
        self._canary = Canary(client, clock)
        self._draining = False
        self._told_away = False
        self._ask_now = asyncio.Event()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._ask()
            well = self.state in (BackendState.ONLINE, BackendState.DRAINING)
            pause = HEALTHY_SECONDS if well else AWAY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ask_now.wait()
            self._ask_now.clear()

    def ask_now(self, *, inventory: bool = False) -> None:
        """Something suggests that the backend changed."""
        if inventory:
            self._inventory_at = None
        self._ask_now.set()

    def drain(self, draining: bool) -> None:
        """An operator wants it to get no more work, or to get work again."""
        if draining is not self._draining:
            self._draining = draining
            self._ask_now.set()
            self._changed()

    def permits(self) -> bool:
        """Whether a prompt may be posted now."""
        now = self._clock.monotonic()
        trusted = self._suspect_since is None and not self._draining
        return trusted and self.state is BackendState.ONLINE and self.breaker.permits(now)

    def answered_badly(self) -> None:
        """A prompt could not be posted."""
        self._set_breaker(self.breaker.failed(self._clock.monotonic()))
        self._ask_now.set()

    def answered_well(self) -> None:
        self._set_breaker(self.breaker.succeeded())

    def suspect(self, why: str) -> None:
        """It answers but does not work: no more work until a canary came back."""
        if self._suspect_since is None:
            log.warning("backend_suspect", backend=self.name, reason=why)
            self._figures.suspected.inc()
        self._suspect_since = self._clock.monotonic()
        self._ask_now.set()

    async def _probe(self) -> None:
        """Whether a suspect works again."""
        since = self._suspect_since
        if since is None:
            return
        if Canary.suits(self.inventory):
            try:
                well = await self._canary.came_back()
            except PromptRefused:
                well = False
        else:
            well = self._clock.monotonic() - since >= SUSPICION_SECONDS
        if well and self._suspect_since == since:
            self._suspect_since = None
            log.info("backend_trusted", backend=self.name)

    async def _ask(self) -> None:
        now = self._clock.monotonic()
        try:
            stats = await self._client.system_stats()
            if self._inventory_at is None or now - self._inventory_at >= INVENTORY_SECONDS:
                await self._read_inventory()
            await self._probe()
        except (BackendError, ValueError) as fault:
            self._away(self._clock.monotonic(), fault)
            await self._write(self.state, None)
            return
        if self.away_since is not None:
            log.info("backend_online", backend=self.name, version=stats.version)
            self.away_since = None
            self._told_away = False
            self._set_breaker(self.breaker.succeeded())
        suspect = self._suspect_since is not None
        well = BackendState.DRAINING if self._draining else BackendState.ONLINE
        state = BackendState.DEGRADED if suspect else well
        if await self._write(state, stats):  # before any claim: lanes enter anew by it
            self._set_state(state)

    def _away(self, now: float, fault: Exception) -> None:
        self.refuses = isinstance(fault, Unreachable)
        if self.refuses:
            self._suspect_since = None  # what listens there next is another process
            self._canary = Canary(self._client, self._clock)
        if self.away_since is None:
            self.away_since = now
        if not self._told_away:
            log.warning("backend_away", backend=self.name, fault=type(fault).__name__)
            self._told_away = True
        self._inventory_at = None
        self._set_breaker(self.breaker.failed(now))
        self._set_state(BackendState.OFFLINE)

    async def _read_inventory(self) -> None:
        document = await self._client.object_info()
        inventory = await asyncio.to_thread(wire_inventory.parse, document)
        await asyncio.to_thread(getattr, inventory, "hash")  # a large one takes a while to hash
        self.inventory = inventory
        self._inventory_at = self._clock.monotonic()

    async def _write(self, state: BackendState, stats: SystemStats | None) -> bool:
        """Write down what is new; memory figures only with something else, or for the first time.

        False: the database did not take it, or another worker drives the backend.
        """
        told = (
            state,
            stats.version if stats else None,
            self.inventory.hash if self.inventory else None,
            self.breaker.state,
        )
        memory = _memory(stats) if stats else None
        if memory is not None:
            for kind, size in memory.items():
                self._figures.memory[kind].set(size)
        if told == self._written:
            return True

        async def write(tx: Tx) -> bool:
            if not await backends.hold(tx, self.backend_id, self._worker_id):
                return False
            if self.inventory is not None:
                await store_inventory(tx, self.inventory, self._clock.now())
                if state is BackendState.ONLINE:
                    await lanes.admit(tx, self.backend_id, self.inventory.hash)
            await backends.describe(
                tx,
                self.backend_id,
                worker_id=self._worker_id,
                state=state,
                now=self._clock.now(),
                version=stats.version if stats else None,
                devices=[asdict(device) for device in stats.devices] if stats else None,
                memory=memory,
                inventory_hash=self.inventory.hash if self.inventory else None,
                breaker={"state": self.breaker.state, "failures": self.breaker.failures},
            )
            return True

        with contextlib.suppress(Unavailable):
            if not await self._db.write(write):
                return False
            self._written = told
            self._signals.pool_changed()
            self._changed()
            return True
        return False

    def _set_state(self, state: BackendState) -> None:
        if state is not self.state:
            self.state = state
            self._figures.up.set(state in (BackendState.ONLINE, BackendState.DRAINING))
            self._changed()

    def _set_breaker(self, breaker: Breaker) -> None:
        if breaker.state is not self.breaker.state:
            log.info("breaker", backend=self.name, state=breaker.state)
            self._figures.breaker.set(BREAKER_STATES[breaker.state])
        self.breaker = breaker

    def probing(self) -> None:
        """A permitted request goes out: while not closed, it is the one probe."""
        if self.breaker.state is not BreakerState.CLOSED:
            self._set_breaker(self.breaker.probe(self._clock.monotonic()))


def _memory(stats: SystemStats) -> dict[str, int]:
    return {
        "ram_total": stats.ram_total,
        "ram_free": stats.ram_free,
        "vram_total": sum(device.vram_total for device in stats.devices),
        "vram_free": sum(device.vram_free for device in stats.devices),
    }
