"""Brings results that wait on the disk to the store, and only then ends their jobs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from comfy_api_service.db.endings import Ending, deadline_error
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import Artifact, JobError, State, Status
from comfy_api_service.storage.base import Storage, StorageError
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.parcel import Parcel, ParcelDamaged
from comfy_api_service.worker.parking import Parking
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.shelf import Shelf
from comfy_api_service.worker.verdict import Lost, Why

log = structlog.get_logger()
T = TypeVar("T")

AT_ONCE: Final = 4
"""Parcels carried at a time, once the store answers; until then one."""
PAUSE_SECONDS: Final = 0.25
"""Before a store that did not answer is asked again, doubled up to `LONGEST_PAUSE_SECONDS`."""
LONGEST_PAUSE_SECONDS: Final = 5.0


class Carrier:
    def __init__(
        self,
        store: Storage,
        shelf: Shelf,
        parking: Parking,
        reporter: Reporter,
        clock: Clock,
        metrics: Metrics,
        *,
        worker_id: str,
        retention: float,
        timeout: float,
    ) -> None:
        """`retention`: seconds that artifacts are kept; `timeout`: seconds that a parcel waits at most."""
        self._store = store
        self._shelf = shelf
        self._parking = parking
        self._reporter = reporter
        self._clock = clock
        self._metrics = metrics
        self._worker_id = worker_id
        self._retention = retention
        self._timeout = timeout
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        pause = PAUSE_SECONDS
        while True:
            await self._shelf.some.wait()
            parcels = self._shelf.next(1 if self._parking.away else AT_ONCE)
            carried = await asyncio.gather(*map(self._carry, parcels))
            if any(carried):
                pause = PAUSE_SECONDS
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def job_ids(self) -> set[str]:
        """Jobs whose results wait here."""
        return self._shelf.job_ids()

    def stop_job(self, job_id: str, why: Why) -> None:
        """End a job, if its result waits here."""
        parcel = self._shelf.of_job(job_id)
        if parcel is not None and job_id not in self._stopping:
            task = self._stopping[job_id] = asyncio.create_task(self._stop(parcel, why))
            task.add_done_callback(lambda _: self._stopping.pop(job_id, None))

    async def _stop(self, parcel: Parcel, why: Why) -> None:
        if why.kind == "canceled":
            ending = Ending(
                State.CANCELED,
                produced=parcel.images,
                backend_seconds=parcel.backend_seconds,
                outcome="canceled",
            )
        else:
            ending = _failure(parcel, deadline_error())
        await self._end(parcel, ending, "canceled")

    async def _carry(self, parcel: Parcel) -> bool:
        """Whether this parcel's waiting is over."""
        if self._shelf.waited(parcel) > self._timeout:
            error = JobError(Code.STORAGE_FAILED, "The storage was away too long.")
            await self._end(parcel, _failure(parcel, error), "expired")
            return True
        try:
            for artifact in parcel.artifacts:
                if artifact.key in parcel.keys:
                    await self._deliver(artifact)
        except ParcelDamaged:
            lost = Lost("parked result damaged")
            await self._answering(parcel, lambda one: self._reporter.requeue(one, lost))
            await self._drop(parcel, "damaged")
            return True
        except StorageError as fault:
            self._parking.away = True
            self._shelf.put_back(parcel)
            log.warning("storage_failed", job_id=parcel.job_id, reason=str(fault))
            return False
        self._parking.away = False
        await self._end(parcel, parcel.ending(self._clock.now() + self._retention), "delivered")
        return True

    async def _answering(self, parcel: Parcel, write: Callable[[Parcel], Awaitable[T]]) -> T:
        """Write for who answers for the attempt: who packed it, or this worker, which took it over from that one."""
        written = await write(parcel)
        if written or parcel.worker_id == self._worker_id:
            return written
        return await write(replace(parcel, worker_id=self._worker_id))

    async def _deliver(self, artifact: Artifact) -> None:
        """Raises `ParcelDamaged` if what is on the disk is not what was parked."""
        stored = await self._store.put(
            artifact.key, self._content(artifact.key), media_type=artifact.media_type
        )
        if (stored.bytes, stored.sha256) != (artifact.bytes, artifact.sha256):
            await self._store.delete([artifact.key])
            raise ParcelDamaged("The file is not what was parked.")

    async def _content(self, key: str) -> AsyncIterator[bytes]:
        try:
            async with self._shelf.open(key) as reader:
                async for chunk in reader.chunks():
                    yield chunk
        except StorageError as fault:  # of the disk: not to be taken for the store's
            raise ParcelDamaged("The file cannot be read.") from fault

    async def _end(self, parcel: Parcel, ending: Ending, outcome: str) -> None:
        measured = parcel.measured if ending.state is State.SUCCEEDED else None
        status = await self._answering(parcel, lambda one: self._reporter.finish(one, ending, measured))
        if status is not Status.SUCCEEDED:
            keys = [one.key for one in parcel.artifacts]
            await self._discard(parcel, await self._reporter.left_over(parcel, keys))
        if status is None:
            outcome = "replaced"
        elif status is Status.CANCELED:
            outcome = "canceled"
        await self._drop(parcel, outcome)

    async def _discard(self, parcel: Parcel, keys: list[str]) -> None:
        """As far as the store answers: what stays behind is an orphan, and swept as such."""
        if self._parking.away:
            return
        try:
            await self._store.delete(keys)
        except StorageError:
            log.warning("discard_failed", job_id=parcel.job_id)

    async def _drop(self, parcel: Parcel, outcome: str) -> None:
        if not self._shelf.holds(parcel.key):
            return
        self._metrics.parked_ends.labels(outcome).inc()
        log.info("parked_result_ended", job_id=parcel.job_id, outcome=outcome)
        try:
            await self._shelf.drop(parcel)
        except StorageError:  # found again at the next start, and dropped then
            log.warning("discard_failed", job_id=parcel.job_id)


def _failure(parcel: Parcel, error: JobError) -> Ending:
    return Ending(
        State.FAILED, error=error, backend_seconds=parcel.backend_seconds, outcome=error.code.lower()
    )
