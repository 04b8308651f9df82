"""Which backends a worker drives: those that fall to it when the pool is shared out among the living.

Taken over from a dead worker at once; handed over to a living one when what runs there has ended.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from comfy_api_service.db import backends, work, workers
from comfy_api_service.db.base import Database, Reader
from comfy_api_service.db.workers import Living
from comfy_api_service.domain.backend import Backend
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.domain.leases import shared_out
from comfy_api_service.services.forever import forever
from comfy_api_service.signals.base import Signals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import assigned
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.scope import drivable
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.verdict import Lost

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
ABANDONED_SECONDS: Final = 30.0
"""How long the open attempts of a backend that nobody drives wait for somebody who can reach it."""


@dataclass(slots=True)
class Held:
    """A backend that this worker drives."""

    driver: Driver
    task: asyncio.Task[None]
    leaving: asyncio.Task[None] | None = None


class Fleet:
    def __init__(
        self,
        worker_id: str,
        *,
        alone: bool,
        make_driver: Callable[[Backend], Driver],
        db: Database,
        signals: Signals,
        clock: Clock,
        metrics: Metrics,
        reporter: Reporter,
        settler: Settler,
        handover_seconds: float,
    ) -> None:
        """`handover_seconds`: the longest that a backend is drained before another worker gets it."""
        self._worker_id = worker_id
        self._alone = alone
        self._make_driver = make_driver
        self._db = db
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._reporter = reporter
        self._settler = settler
        self._handover_seconds = handover_seconds
        self._held: dict[str, Held] = {}
        self._abandoned: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._draining = False
        self._one_at_a_time = asyncio.Lock()

    @property
    def drivers(self) -> list[Driver]:
        return [held.driver for held in self._held.values()]

    async def run(self) -> None:
        """Until cancelled."""
        stop = self._signals.on_pool_change(self._changed.set)
        try:
            while True:
                with contextlib.suppress(ServiceError):
                    await self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            stop()

    async def look(self) -> None:
        """Take what falls to this worker, let go of what does not."""
        async with self._one_at_a_time:
            await self._look()

    async def _look(self) -> None:

        async def read(tx: Reader) -> tuple[list[Backend], list[Living], dict[str, bool]]:
            return await backends.every(tx), await workers.living(tx), await work.abandoned_backends(tx)

        listed, living, abandoned = await self._db.read(read)
        if self._worker_id not in {worker.id for worker in living}:
            return  # the lease says so too, in a moment
        wanted = shared_out(
            {worker.id: drivable(worker, listed) for worker in living},
            {backend.id: backend.worker_id for backend in listed},
        )
        by_id = {backend.id: backend for backend in listed}
        for backend_id, held in tuple(self._held.items()):
            backend = by_id.get(backend_id)
            if backend is not None and backend.worker_id != self._worker_id:
                await self._lose(backend_id)
            elif backend is None or wanted.get(backend_id) != self._worker_id:
                self._hand_over(backend_id, held)
            else:
                held.driver.pause(backend.draining)
        if not self._draining:
            for backend in listed:
                if wanted.get(backend.id) == self._worker_id and backend.id not in self._held:
                    await self._take(backend)
            await self._rescue(abandoned)
        self._metrics.leases.set(len(self._held))

    async def _take(self, backend: Backend) -> None:
        taken = await self._db.write(lambda tx: backends.take(tx, backend.id, self._worker_id))
        if taken is None:
            return
        log.info("backend_taken", backend=taken.name)
        driver = self._make_driver(taken)
        driver.pause(taken.draining)
        task = asyncio.create_task(forever(f"driver of {taken.name}", driver.run))
        self._held[taken.id] = Held(driver, task)
        self._abandoned.pop(taken.id, None)

    def _hand_over(self, backend_id: str, held: Held) -> None:
        if held.leaving is None:
            log.info("backend_handed_over", backend=held.driver.name)
            held.leaving = asyncio.create_task(self._leave(backend_id, held))

    async def _leave(self, backend_id: str, held: Held) -> None:
        """What waits and runs there may end; what is left then is adopted by whoever comes."""
        await held.driver.drain(self._handover_seconds)
        await self._end(held)
        await self._reporter.persist(lambda tx: backends.release(tx, backend_id, self._worker_id))
        self._forget(backend_id)
        self._signals.pool_changed()

    async def _lose(self, backend_id: str) -> None:
        """Somebody else drives it: nothing there is this worker's business any more."""
        held = self._held[backend_id]
        log.warning("backend_lost", backend=held.driver.name)
        if held.leaving is not None:
            held.leaving.cancel()
        await self._end(held)
        self._forget(backend_id)

    async def _end(self, held: Held) -> None:
        held.task.cancel()
        await asyncio.wait((held.task,))
        await held.driver.close()

    def _forget(self, backend_id: str) -> None:
        held = self._held.pop(backend_id)
        self._metrics.remove_backend(held.driver.name)
        self._metrics.leases.set(len(self._held))

    async def _rescue(self, abandoned: Mapping[str, bool]) -> None:
        """Open attempts that nobody can see to where they are: their jobs run elsewhere, at once if the backend is on
        the list no more, or if no other worker can come.
        """
        now = self._clock.monotonic()
        self._abandoned = {one: self._abandoned.get(one, now) for one in abandoned if one not in self._held}
        for backend_id, since in tuple(self._abandoned.items()):
            if not self._alone and not abandoned[backend_id] and now - since < ABANDONED_SECONDS:
                continue
            attempts = await self._db.write(
                lambda tx, backend_id=backend_id: work.adopt(tx, backend_id, self._worker_id)  # type: ignore[misc]
            )
            for attempt in attempts:
                if not self._settler.holds(attempt.fence.key):
                    log.info("attempt_abandoned", job_id=attempt.job_id, attempt=attempt.attempt)
                    await self._reporter.requeue(assigned(attempt), Lost("backend removed"))

    async def drain(self, grace: float) -> None:
        """Take nothing more; running jobs may finish for `grace` seconds."""
        self._draining = True
        await asyncio.gather(*(driver.drain(grace) for driver in self.drivers))

    async def abandon(self) -> None:
        """Stop following everything, and leave it where it is."""
        async with self._one_at_a_time:
            for held in self._held.values():
                if held.leaving is not None:
                    held.leaving.cancel()
                await self._end(held)
            for backend_id in tuple(self._held):
                self._forget(backend_id)
