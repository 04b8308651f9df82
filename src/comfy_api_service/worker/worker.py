"""The worker: registers itself, drives its backends, proves that it lives, carries out marks and upkeep."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.db import backends, counters, work, workers
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.domain.ids import new_worker_id
from comfy_api_service.services.forever import forever
from comfy_api_service.signals.base import Signals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import assigned
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.preparation import Preparation
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.room import Room
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.upkeep import Upkeep
from comfy_api_service.worker.verdict import Lost, Why

log = structlog.get_logger()

LIFE_SECONDS: Final = 3.0
"""How often the lease's counter is raised."""
MARKS_SECONDS: Final = 1.0
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Worker:
    def __init__(
        self,
        *,
        urls: Sequence[str],
        node_id: str,
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
        concurrency: int | None,
        job_timeout: float,
        stall_timeout: float,
    ) -> None:
        self.id = new_worker_id()
        self._node_id = node_id
        self._db = db
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._reporter = reporter
        self._settler = settler
        self._carrier = carrier
        self._upkeep = upkeep
        room = Room(concurrency)
        self._urls = {backend_id(url, node_id): url for url in urls}
        self._drivers = []
        for name, (identity, url) in zip(backend_names(urls), self._urls.items(), strict=True):
            metrics.add_backend(name)
            client = ComfyClient(url, http, observer=_observer(metrics, name))
            self._drivers.append(
                Driver(
                    backend_id=identity,
                    name=name,
                    worker_id=self.id,
                    client=client,
                    db=db,
                    signals=signals,
                    clock=clock,
                    metrics=metrics,
                    reporter=reporter,
                    settler=settler,
                    room=room,
                    preparation=preparation,
                    job_timeout=job_timeout,
                    stall_timeout=stall_timeout,
                )
            )

    async def register(self) -> None:
        """Enter worker and backends; the lock on the data folder proves that no other worker lives."""
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            await workers.register(tx, self.id, node_id=self._node_id, now=now, alone=True)
            await backends.remove_others(tx, list(self._urls), now)
            for driver in self._drivers:
                await backends.register(
                    tx,
                    backend_id=driver.backend_id,
                    url=self._urls[driver.backend_id],
                    name=driver.name,
                    node_id=self._node_id,
                    worker_id=self.id,
                    now=now,
                )

        await self._db.write(write)
        await self._release_removed()
        self._metrics.leases.set(len(self._drivers))

    async def _release_removed(self) -> None:
        """Jobs that a backend had which is no more in the settings: nobody will tell what became of them."""
        left = set(await self._db.read(work.backends_with_open_attempts)) - self._urls.keys()
        for identity in sorted(left):
            await self._release(identity)

    async def _release(self, identity: str) -> None:
        for attempt in await self._db.read(lambda tx: work.open_attempts(tx, identity)):
            if not self._settler.holds(attempt.fence):
                await self._reporter.requeue(assigned(attempt), Lost("backend removed"))

    async def run(self) -> None:
        """Drive everything until cancelled."""
        stop = self._signals.on_cancel(self._cancel)
        try:
            async with asyncio.TaskGroup() as group:
                for driver in self._drivers:
                    group.create_task(driver.run())
                for name, work in (
                    ("upkeep", self._upkeep.run),
                    ("lease", self._live),
                    ("marks", self._heed_marks),
                    ("gauges", self._measure),
                ):
                    group.create_task(forever(name, work))
                if self._carrier is not None:
                    group.create_task(forever("parked results", self._carrier.run))
        finally:
            stop()
            for driver in self._drivers:
                await driver.close()

    async def drain(self, grace: float) -> None:
        """No new work; running jobs may finish for `grace` seconds."""
        await asyncio.gather(*(driver.drain(grace) for driver in self._drivers))

    def _cancel(self, job_id: str) -> None:
        for part in self._parts:
            part.stop_job(job_id, Why("canceled"))

    @property
    def _parts(self) -> "Sequence[Driver | Carrier]":
        """All that has jobs."""
        return self._drivers if self._carrier is None else [*self._drivers, self._carrier]

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(LIFE_SECONDS)
            try:
                if not await self._db.write(lambda tx: workers.prove_life(tx, self.id)):
                    log.error("worker_replaced", worker=self.id)
            except ServiceError:
                log.warning("lease_not_renewed")

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
                self._metrics.in_progress.set(load.running)
                for tier, queued in load.by_tier.items():
                    self._metrics.queue_depth.labels(tier).set(queued)
                oldest = load.oldest_queued_at
                age = 0.0 if oldest is None else max(self._clock.now() - oldest, 0.0)
                self._metrics.queue_oldest.set(age)
            for driver in self._drivers:
                self._metrics.backend_busy.labels(driver.name).set(driver.busy.ratio())
            await asyncio.sleep(2.0)


def backend_id(url: str, node_id: str) -> str:
    """A backend's identity is its URL; a loopback address is qualified by the machine it is on."""
    host = urlsplit(url).hostname or ""
    qualified = f"{node_id}|{url}" if host in LOOPBACK or host.startswith("127.") else url
    return "bck_" + hashlib.sha256(qualified.encode()).hexdigest()[:26]


def backend_names(urls: Sequence[str]) -> list[str]:
    """Names to show: `comfyui-1` … in the order of the settings; an address is nobody's business."""
    return [f"comfyui-{number}" for number in range(1, len(urls) + 1)]


def _observer(metrics: Metrics, name: str) -> Callable[[str, str, float], None]:
    duration = metrics.backend_duration.labels(name)

    def observe(route: str, status: str, seconds: float) -> None:
        del route
        if status.isdigit():
            status = "ok" if int(status) < 400 else "error"
        metrics.backend_requests.labels(name, status).inc()
        duration.observe(seconds)

    return observe
