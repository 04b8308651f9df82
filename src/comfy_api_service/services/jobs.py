"""One's own jobs: read, list, cancel, purge."""

from dataclasses import dataclass

from comfy_api_service.db import counters, jobs, transitions
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Conflict, NotFound
from comfy_api_service.domain.job import TERMINAL, Job, Status
from comfy_api_service.services.announce import Announcer
from comfy_api_service.services.estimates import place_of
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.views import JobView, Link, Page
from comfy_api_service.signals.base import Signals
from comfy_api_service.storage.base import Storage


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
        return self.view(account, job, queue)

    async def _queue(self, tx: Reader, account: Account) -> Queue:
        seconds = await counters.open_seconds(tx, self._clock.now())
        return Queue(await counters.lane(tx, account.id), seconds)

    def view(self, account: Account, job: Job, queue: Queue | None = None) -> JobView:
        """Everything beside the row: place (from `queue`), progress, links, the backend's name."""
        now = self._clock.now()
        progress, preview = self._signals.latest(job.id) if job.state not in TERMINAL else (None, None)
        return JobView(
            job=job,
            place=None
            if queue is None
            else place_of(job, queue.lane, self._pool.view, now=now, open_seconds=queue.open_seconds),
            progress=progress,
            has_preview=preview is not None,
            links=() if job.purged_at is not None else self.links(account, job),
            backend=self._pool.view.backend_name(job.backend_id),
        )

    def links(self, account: Account, job: Job) -> tuple[Link, ...]:
        """Signed links of the artifacts; they end with the tier's time, or with the artifacts."""
        expires_at = self._clock.now() + account.link_ttl
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
            tuple(self.view(account, job, queue) for job in shown),
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
        return self.view(account, job)

    async def purge(self, account: Account, job_id: str) -> JobView:
        """Delete the results of a finished job; the job itself stays until its own retention ends."""
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
        await self._storage.delete([artifact.key for artifact in job.artifacts])
        return await self.get(account, job_id)
