"""A worker's regular duties beside running jobs, each small and safe to repeat."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from comfy_api_service.db import counters, dispatch, jobs, sessions, timings, uploads, work
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.endings import Ending, deadline_error
from comfy_api_service.db.keys import KEY_SECONDS
from comfy_api_service.db.requirements import forget_unused
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.domain.job import JobError, State
from comfy_api_service.domain.redelivery import KEPT_SECONDS
from comfy_api_service.storage.base import Storage, StorageError
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.reporter import Reporter

log = structlog.get_logger()

CHUNK: Final = 500
"""Rows a duty handles in one go."""
UPLOAD_CHUNKS: Final = 20
"""Chunks of expired uploads that are deleted before the duty rests."""
ORPHAN_SECONDS: Final = 86_400.0
"""A file without a row is removed when it is this old and its attempt is closed."""


class Upkeep:
    def __init__(
        self,
        db: Database,
        storage: Storage,
        reporter: Reporter,
        clock: Clock,
        metrics: Metrics,
        *,
        unservable_timeout: float,
        job_retention: float,
    ) -> None:
        self._db = db
        self._storage = storage
        self._reporter = reporter
        self._clock = clock
        self._metrics = metrics
        self._unservable_timeout = unservable_timeout
        self._job_retention = job_retention

    async def run(self) -> None:
        """All duties, each at its own pace, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for seconds, duty in (
                (1.0, self.fail_overdue),
                (5.0, self.fail_unservable),
                (60.0, self.delete_expired),
                (60.0, self.delete_expired_uploads),
                (60.0, self.give_up_deliveries),
                (60.0, self.reconcile),
                (600.0, self.forget_old),
                (3600.0, self.sweep_orphans),
            ):
                group.create_task(self._every(seconds, duty))

    async def _every(self, seconds: float, duty: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await duty()
            except (ServiceError, StorageError) as fault:
                log.warning("duty_failed", duty=getattr(duty, "__name__", ""), fault=type(fault).__name__)
            except Exception:
                log.exception("duty_failed", duty=getattr(duty, "__name__", ""))

    async def fail_overdue(self) -> int:
        """Jobs that wait beyond their deadline."""
        now = self._clock.now()
        overdue = await self._db.read(lambda tx: work.overdue_ready(tx, now, limit=CHUNK))
        for job_id in overdue:
            await self._reporter.give_up(job_id, Ending(State.FAILED, error=deadline_error()))
        return len(overdue)

    async def fail_unservable(self) -> int:
        """Jobs whose need no registered backend has satisfied for a long time."""
        now = self._clock.now()
        stranded = await self._db.write(
            lambda tx: work.unservable(tx, now=now, timeout=self._unservable_timeout, limit=CHUNK)
        )
        for job_id in stranded:
            error = JobError(
                Code.NO_CAPABLE_BACKEND, "The backends that could run this job have been away too long."
            )
            await self._reporter.give_up(job_id, Ending(State.FAILED, error=error))
        return len(stranded)

    async def delete_expired(self) -> int:
        """Artifacts beyond their retention: first the mark, so that no link is made any more, then the files."""
        now = self._clock.now()
        expired = await self._db.read(lambda tx: work.expired(tx, now, limit=CHUNK))
        if not expired:
            return 0

        async def mark(tx: Tx) -> list[str]:
            await jobs.mark_purged(tx, expired, now)
            return await jobs.artifact_keys(tx, expired)

        keys = await self._db.write(mark)
        await self._storage.delete(keys)
        log.info("expired_deleted", jobs=len(expired), files=len(keys))
        return len(expired)

    async def delete_expired_uploads(self) -> int:
        """Uploads beyond their time that no open job needs: first the row, so that no job can come to need it."""
        now = self._clock.now()
        gone = 0
        for _ in range(UPLOAD_CHUNKS):
            keys = await self._db.write(lambda tx: uploads.take_out_expired(tx, now, limit=CHUNK))
            if keys:
                await self._storage.delete(keys)
                log.info("expired_uploads_deleted", files=len(keys))
            gone += len(keys)
            if len(keys) < CHUNK:
                break
        return gone

    async def give_up_deliveries(self) -> int:
        """Webhooks' deliveries that were tried for long enough, or that nobody wants any more."""
        now = self._clock.now()
        expired = await self._by_chunks(lambda tx: dispatch.expire(tx, now, limit=CHUNK))
        disabled = await self._by_chunks(lambda tx: dispatch.give_up_disabled(tx, now, limit=CHUNK))
        deleted = await self._by_chunks(lambda tx: dispatch.forget_deleted(tx, limit=CHUNK))
        self._metrics.webhook_deliveries.labels("failed").inc(expired + disabled)
        if expired + disabled + deleted:
            log.info("deliveries_given_up", expired=expired, webhook_disabled=disabled, deleted=deleted)
        return expired + disabled + deleted

    async def _by_chunks(self, write: Callable[[Tx], Awaitable[int]]) -> int:
        """Until there is no more of it; how much it was."""
        gone = 0
        while True:
            chunk = await self._db.write(write)
            gone += chunk
            if chunk < CHUNK:
                return gone

    async def reconcile(self) -> int:
        """Counters against counts; a difference is a bug, told loudly and mended."""
        found = await self._db.read(counters.drift)
        if found:
            self._metrics.counter_drift.inc(len(found))
            log.error("counter_drift", lanes=[(d.account_id, d.counter, d.says, d.counted) for d in found])
            await self._db.write(counters.mend)
        return len(found)

    async def forget_old(self) -> int:
        """Rows beyond their retention."""
        now = self._clock.now()
        before = now - self._job_retention
        gone = await self._by_chunks(
            lambda tx: work.forget(tx, before=before, keys_before=now - KEY_SECONDS, limit=CHUNK)
        )
        await self._db.write(lambda tx: forget_unused(tx, now - 3600))
        await self._db.write(timings.forget)
        await self._db.write(lambda tx: sessions.sweep(tx, now))
        await self._by_chunks(lambda tx: dispatch.forget(tx, before=now - KEPT_SECONDS, limit=CHUNK))
        return gone

    async def sweep_orphans(self) -> int:
        """Files that no row names: left by attempts that were replaced. Old ones only, never of an open job."""
        before = self._clock.now() - ORPHAN_SECONDS
        await self._storage.clear_unfinished(before)
        swept = 0
        for prefix, sweep in (("jobs/", self._sweep), ("uploads/", self._sweep_uploads)):
            chunk: list[str] = []
            async for listed in self._storage.list_prefix(prefix):
                if listed.modified_at < before:
                    chunk.append(listed.key)
                if len(chunk) >= CHUNK:
                    swept += await sweep(chunk)
                    chunk = []
            swept += await sweep(chunk)
        return swept

    async def _sweep_uploads(self, keys: list[str]) -> int:
        if not keys:
            return 0
        ids = sorted({key.rpartition("/")[2] for key in keys})
        kept = await self._db.read(lambda tx: uploads.kept_keys(tx, ids))
        orphans = [key for key in keys if key not in kept]
        await self._storage.delete(orphans)
        return len(orphans)

    async def _sweep(self, keys: list[str]) -> int:
        if not keys:
            return 0
        jobs_of = {key: key.split("/")[1] for key in keys}
        open_jobs = await self._db.read(work.open_job_ids)  # first: one that ends meanwhile has its rows then
        kept = await self._db.read(lambda tx: work.kept_keys(tx, sorted(set(jobs_of.values()))))
        orphans = [key for key in keys if key not in kept and jobs_of[key] not in open_jobs]
        await self._storage.delete(orphans)
        return len(orphans)
