"""One's own jobs: read, list, cancel, purge."""

from collections.abc import Sequence
from dataclasses import dataclass

from comfy_api_service.db import counters, jobs, transitions
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Conflict, NotFound, Unavailable
from comfy_api_service.domain.job import ACTIVE, TERMINAL, Job, Status
from comfy_api_service.services.announce import Announcer
from comfy_api_service.services.estimates import place_of
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.views import JobView, Link, Page
from comfy_api_service.signals.base import Latest, Signals
from comfy_api_service.storage.base import Storage, StorageError


@dataclass(frozen=True, slots=True)
class Queue:
    """What the place of an account's waiting jobs is estimated from."""

    lane: counters.LaneState | None
    open_seconds: float


class Jobs:
    def __init__(
        self,
        db: Database,
        pool: Pool,
        signals: Signals,
        announcer: Announcer,
        storage: Storage,
        clock: Clock,
    ) -> None:
        self._db = db
        self._announcer = announcer
        self._pool = pool
        self._signals = signals
        self._storage = storage
        self._clock = clock

    async def get(self, account: Account, job_id: str) -> JobView:
        """The job now; `NotFound` if it is absent or somebody else's."""

        async def read(tx: Reader) -> tuple[Job | None, Queue | None]:
            job = await jobs.get(tx, account.id, job_id)
            waiting = job is not None and job.status is Status.QUEUED
            return job, await self._queue(tx, account) if waiting else None

        job, queue = await self._db.read(read)
        if job is None:
            raise NotFound("job")
        return (await self.views(account, [job], queue))[0]

    async def _queue(self, tx: Reader, account: Account) -> Queue:
        seconds = await counters.open_seconds(tx, self._clock.now())
        return Queue(await counters.lane(tx, account.id), seconds)

    async def views(self, account: Account, jobs: Sequence[Job], queue: Queue | None = None) -> list[JobView]:
        """Views of jobs as they are now, with how far the running ones are."""
        running = [job.id for job in jobs if job.state in ACTIVE]
        latest = await self._signals.latest(running) if running else {}
        return [self.view(account, job, queue, latest.get(job.id)) for job in jobs]

    def view(
        self, account: Account, job: Job, queue: Queue | None = None, latest: Latest | None = None
    ) -> JobView:
        """Everything beside the row: place (from `queue`), progress (`latest`), links, the backend's name."""
        now = self._clock.now()
        said = latest if latest is not None and latest.attempt == job.attempt else None
        return JobView(
            job=job,
            place=None
            if queue is None
            else place_of(job, queue.lane, self._pool.view, now=now, open_seconds=queue.open_seconds),
            progress=None if said is None else said.progress,
            has_preview=said is not None and said.has_preview,
            links=() if job.purged_at is not None else self.links(account, job),
            backend=self._pool.view.backend_name(job.backend_id),
        )

    def links(self, account: Account, job: Job) -> tuple[Link, ...]:
        """Signed links of the artifacts; they end with the tier's time, or with the artifacts."""
        expires_at = self._clock.now() + account.limits.link_ttl
        return tuple(
            Link(
                self._storage.link(
                    artifact.key,
                    expires_at=expires_at,
                    media_type=artifact.media_type,
                    filename=artifact.key.rpartition("/")[2],
                ),
                expires_at,
            )
            for artifact in job.artifacts
        )

    async def list(
        self, account: Account, *, filters: JobFilters, cursor: str | None, limit: int
    ) -> Page[JobView]:
        """Newest first. The cursor is the last job's id of the page before."""

        async def read(tx: Reader) -> tuple[list[Job], Queue]:
            found = await jobs.page(tx, account.id, filters, before=cursor, limit=limit + 1)
            return found, await self._queue(tx, account)

        found, queue = await self._db.read(read)
        more = len(found) > limit
        shown = found[:limit]
        return Page(
            tuple(await self.views(account, shown, queue)),
            shown[-1].id if more else None,
        )

    async def cancel(self, account: Account, job_id: str) -> JobView:
        """Queued: canceled at once. With a backend: marked, and canceled when the backend has stopped."""
        now = self._clock.now()
        job, change = await self._db.write(lambda tx: transitions.cancel(tx, account.id, job_id, now=now))
        if job is None:
            raise NotFound("job")
        if change is not None:
            self._announcer.announce(job.id, change)
        elif job.canceling:
            self._signals.ask_cancel(job.id)
        else:
            raise Conflict("The job is finished already.", status=job.status)
        return (await self.views(account, [job]))[0]

    async def purge(self, account: Account, job_id: str) -> JobView:
        """Delete the results of a finished job; the job itself stays until its own retention ends.

        Raises `Unavailable` if the storage is away: no link is made any more, and asking again deletes the files.
        """
        now = self._clock.now()

        async def write(tx: Tx) -> Job | None:
            job = await jobs.get(tx, account.id, job_id)
            if job is not None and job.state in TERMINAL and job.purged_at is None:
                await jobs.mark_purged(tx, [job_id], now)
            return job

        job = await self._db.write(write)
        if job is None:
            raise NotFound("job")
        if job.state not in TERMINAL:
            raise Conflict("The job is not finished; cancel it first.", status=job.status)
        try:
            await self._storage.delete([artifact.key for artifact in job.artifacts])
        except StorageError as fault:
            raise Unavailable("The storage cannot be reached now; ask again to delete the files.") from fault
        return await self.get(account, job_id)
