"""The worker: registers itself, drives its backends, proves that it lives, carries out marks and upkeep."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiohttp
import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.transport import Transport
from comfy_api_service.db import backends, counters, work, workers
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.domain.backend import Backend, backend_id
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.services.forever import forever
from comfy_api_service.signals.base import Signals
from comfy_api_service.storage.base import Storage
from comfy_api_service.telemetry import BackendFigures, Metrics
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.fleet import Fleet
from comfy_api_service.worker.lease import Alone, SharedLease
from comfy_api_service.worker.preparation import Preparation
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.room import Room
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.upkeep import Upkeep
from comfy_api_service.worker.verdict import Why

log = structlog.get_logger()

MARKS_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 0.5
MEASURE_SECONDS: Final = 2.0
"""Between two readings of gauges."""
HANDOVER_SECONDS: Final = 60.0
"""Beyond `JOB_TIMEOUT`, for what is stored after it."""


class Worker:
    def __init__(
        self,
        worker_id: str,
        *,
        urls: Sequence[str] | None,
        node_id: str,
        open_own: Callable[[], Awaitable[Database]] | None,
        http: aiohttp.ClientSession,
        db: Database,
        signals: Signals,
        clock: Clock,
        metrics: Metrics,
        reporter: Reporter,
        settler: Settler,
        carrier: Carrier | None,
        upkeep: Upkeep,
        preparation: Preparation,
        storage: Storage,
        concurrency: int | None,
        job_timeout: float,
        stall_timeout: float,
        make_driver: Callable[..., Driver] = Driver,
        make_transport: Callable[..., Transport] = Transport,
    ) -> None:
        """`urls`: the backends that it may drive; None: any that is registered and can be reached from here.

        `open_own` opens connections that the lease has for itself; None: a lock proves that no other worker lives.
        """
        self.id = worker_id
        self._urls = None if urls is None else {backend_id(url, node_id): url for url in urls}
        self._node_id = node_id
        self._db = db
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._reporter = reporter
        self._settler = settler
        self._carrier = carrier
        self._upkeep = upkeep
        self._http = http
        self._room = Room(concurrency)
        self._driver = make_driver
        self._transport = make_transport
        self._preparation = preparation
        self._storage = storage
        self._job_timeout = job_timeout
        self._stall_timeout = stall_timeout
        self._replaced = asyncio.Event()
        self._burying: dict[str, asyncio.Task[None]] = {}
        self._shared = (
            None
            if open_own is None
            else SharedLease(worker_id, open_own, on_dead=self._on_dead, on_replaced=self._replaced.set)
        )
        self._lease = self._shared or Alone()
        self.fleet = Fleet(
            worker_id,
            alone=self._shared is None,
            make_driver=self._make_driver,
            db=db,
            signals=signals,
            clock=clock,
            metrics=metrics,
            reporter=reporter,
            settler=settler,
            handover_seconds=job_timeout + HANDOVER_SECONDS,
        )

    def _make_driver(self, backend: Backend) -> Driver:
        figures = self._metrics.add_backend(backend.name)
        return self._driver(
            backend_id=backend.id,
            name=backend.name,
            worker_id=self.id,
            client=ComfyClient(
                backend.url,
                self._http,
                observer=_observer(figures),
                before_change=self._lease.proven,
                make_transport=self._transport,
            ),
            db=self._db,
            signals=self._signals,
            clock=self._clock,
            figures=figures,
            reporter=self._reporter,
            settler=self._settler,
            room=self._room,
            preparation=self._preparation,
            storage=self._storage,
            job_timeout=self._job_timeout,
            stall_timeout=self._stall_timeout,
        )

    async def register(self, previous: str | None = None) -> None:
        """Enter the worker and the backends of its settings, and take those that fall to it.

        `previous`: an earlier worker that is known to be dead, whose backends are free at once.
        """
        now = self._clock.now()
        alone = self._shared is None
        urls = self._urls

        async def write(tx: Tx) -> None:
            if previous is not None:
                await workers.bury(tx, previous)
            await workers.register(tx, self.id, node_id=self._node_id, scope=urls, now=now, alone=alone)
            if urls is None:
                return
            names = backend_names(list(urls.values())) if alone else None
            await backends.enroll(tx, urls, node_id=self._node_id, now=now, names=names)
            others = [worker.scope or () for worker in await workers.living(tx)]
            keep = sorted({*urls, *(one for scope in others for one in scope)})
            await backends.retire(tx, keep, node_id=None if alone else self._node_id, now=now)

        entered_at = time.monotonic()
        await self._db.write(write)
        if self._shared is not None:
            await self._shared.start(entered_at)
        self._replaced.clear()  # not before: until here, whatever fails is tried again
        await self.fleet.look()

    async def run(self) -> None:
        """Drive everything until cancelled."""
        stop = self._signals.on_cancel(self._cancel)
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in (
                    ("fleet", self.fleet.run),
                    ("upkeep", self._upkeep.run),
                    ("marks", self._heed_marks),
                    ("gauges", self._measure),
                    ("revival", self._revive),
                ):
                    group.create_task(forever(name, work))
                if self._carrier is not None:
                    group.create_task(forever("parked results", self._carrier.run))
        finally:
            stop()
            await self._leave()

    async def _leave(self) -> None:
        """What is open stays where it is; others may take it over at once."""
        for task in self._burying.values():
            task.cancel()
        await self.fleet.abandon()
        if self._shared is not None:
            await self._shared.stop()
        with contextlib.suppress(ServiceError):
            await self._db.write(lambda tx: workers.bury(tx, self.id))
            self._signals.pool_changed()

    async def _revive(self) -> None:
        """Taken for dead, and alive: whoever took over goes on, and this worker begins anew."""
        while True:
            await self._replaced.wait()
            log.error("worker_replaced", worker=self.id)
            self._metrics.replaced.inc()
            await self.fleet.abandon()
            if self._shared is not None:
                await self._shared.stop()
            while True:
                try:
                    await self.register()
                    break
                except ServiceError:
                    await asyncio.sleep(AGAIN_SECONDS)

    def _on_dead(self, worker_id: str, counter: int) -> None:
        if worker_id not in self._burying:
            task = self._burying[worker_id] = asyncio.create_task(self._bury(worker_id, counter))
            task.add_done_callback(lambda _: self._burying.pop(worker_id, None))

    async def _bury(self, worker_id: str, counter: int) -> None:
        try:
            await self._db.write(lambda tx: workers.bury(tx, worker_id, counter))
        except workers.StillAlive:
            return
        except ServiceError:
            return
        log.warning("worker_dead", worker=worker_id)
        self._signals.pool_changed()

    async def drain(self, grace: float) -> None:
        """No new work; running jobs may finish for `grace` seconds."""
        await self.fleet.drain(grace)

    def _cancel(self, job_id: str) -> None:
        for part in self._parts:
            part.stop_job(job_id, Why("canceled"))

    @property
    def _parts(self) -> "Sequence[Driver | Carrier]":
        """All that has jobs."""
        drivers = self.fleet.drivers
        return drivers if self._carrier is None else [*drivers, self._carrier]

    async def _heed_marks(self) -> None:
        """Cancel marks whose signal was lost, and deadlines, of jobs that backends have."""
        while True:
            await asyncio.sleep(MARKS_SECONDS)
            if not any(part.job_ids() for part in self._parts):
                continue
            try:
                marks = await self._db.read(lambda tx: work.marks(tx, self._clock.now()))
            except ServiceError:
                continue
            for part in self._parts:
                for job_id in part.job_ids() & marks.canceled:
                    part.stop_job(job_id, Why("canceled"))
                for job_id in part.job_ids() & marks.overdue:
                    part.stop_job(job_id, Why("deadline"))

    async def _measure(self) -> None:
        """Gauges that are read from the database or from the drivers."""
        while True:
            try:
                load = await self._db.read(counters.load)
            except ServiceError:
                log.warning("gauges_stale")
            else:
                oldest = load.oldest_queued_at
                age = 0.0 if oldest is None else max(self._clock.now() - oldest, 0.0)
                self._metrics.tell_queue(load.by_tier, running=load.running, oldest=age)
            for driver in self.fleet.drivers:
                driver.tell_busy()
            await asyncio.sleep(MEASURE_SECONDS)


def backend_names(urls: Sequence[str]) -> list[str]:
    """Names to show: `comfyui-1` … in the order of the settings; an address is nobody's business."""
    return [f"comfyui-{number}" for number in range(1, len(urls) + 1)]


def _observer(figures: BackendFigures) -> Callable[[str, str, float], None]:
    def observe(route: str, status: str, seconds: float) -> None:
        del route
        if status.isdigit():
            status = "ok" if int(status) < 400 else "error"
        figures.requests.get(status, figures.requests["bad_answer"]).inc()
        figures.duration.observe(seconds)

    return observe
