"""Follow jobs: snapshot first, then every durable event, then the end, which nobody misses."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

from comfy_api_service.db import jobs as job_rows
from comfy_api_service.db.base import Database
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.errors import NotFound, ServiceError
from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.domain.job import TERMINAL, Job, Status
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.views import Done, Durable, JobView, Moved, Notice, Pictured, Snapshot
from comfy_api_service.signals.base import Look, Mailbox, Signals

OPEN = JobFilters(statuses=frozenset({Status.QUEUED, Status.RUNNING}))
LOOK_SECONDS = 1.0
"""How often the end of all jobs that are listened to is asked for, in one query a process."""


class Watcher:
    def __init__(self, db: Database, jobs: Jobs, signals: Signals) -> None:
        self._db = db
        self._jobs = jobs
        self._signals = signals
        self._waiting: dict[str, set[Mailbox]] = {}
        self._told: dict[Mailbox, set[str]] = {}
        """By listener to an account: its open jobs."""
        self._ends: dict[str, asyncio.Task[JobView]] = {}

    async def run(self) -> None:
        """Look for ends whose signal was lost, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            told = {} if self._signals.connected else dict(self._told)
            jobs = set(self._waiting).union(*told.values())
            if not jobs:
                continue
            with contextlib.suppress(ServiceError):  # the database is away: look again later
                ended = set(await self._ended(sorted(jobs)))
                for job_id in ended:
                    for mailbox in self._waiting.get(job_id, ()):
                        mailbox.look()
                for mailbox, open_jobs in told.items():
                    if not ended.isdisjoint(open_jobs):
                        mailbox.look()

    async def _ended(self, job_ids: list[str]) -> list[str]:
        return await self._db.read(lambda tx: job_rows.ended_among(tx, job_ids))

    async def job(
        self, account: Account, job_id: str, *, after: int | None = None, previews: bool = True
    ) -> AsyncGenerator[Notice, None]:
        """Everything about one job until its end. With `after`, every durable event since that number.

        Raises `NotFound` at the first step. Close the iterator (`aclosing`) to leave early.
        """
        with self._listen(job_id, previews=previews) as mailbox:
            view = await self._jobs.get(account, job_id)
            yield Snapshot(view)
            seen = view.job.seq if after is None else min(after, view.job.seq)
            if view.job.state in TERMINAL and seen >= view.job.seq:
                seen = view.job.seq - 1  # a listener that comes after the end still gets it
            if seen < view.job.seq:
                for event in await self._events_after(account, job_id, seen):
                    seen = event.seq
                    yield await self._tell(account, event)
                    if event.type is EventType.DONE:
                        return
            async for notice in self._follow(account, job_id, mailbox, seen):
                yield notice

    async def _follow(
        self, account: Account, job_id: str, mailbox: Mailbox, seen: int
    ) -> AsyncGenerator[Notice, None]:
        while True:
            note = await mailbox.get()
            if isinstance(note, Look) or (isinstance(note.body, Event) and note.body.seq > seen + 1):
                carried = None if isinstance(note, Look) else note.job
                for event in await self._events_after(account, job_id, seen):
                    seen = event.seq
                    yield await self._tell(account, event, carried)
                    if event.type is EventType.DONE:
                        return
            elif not isinstance(note.body, Event):
                yield _passing(job_id, note.body)
            elif note.body.seq == seen + 1:
                believed = await self._believe(account, note.body, note.job)
                if believed is not None:
                    seen = note.body.seq
                    yield believed
                    if note.body.type is EventType.DONE:
                        return

    async def account(self, account: Account, *, previews: bool = False) -> AsyncGenerator[Notice, None]:
        """Snapshots of the caller's open jobs, then the events of all; it never ends by itself.

        A listener that fell so far behind that events were dropped gets the ends that it missed, and the
        snapshots again: nobody misses the end of a job that he was told of.
        """
        with self._signals.listen_account(account.id, previews=previews) as mailbox:
            mailbox.look()
            told = self._told[mailbox] = set[str]()
            try:
                while True:
                    note = await mailbox.get()
                    if isinstance(note, Look):
                        async for notice in self._catch_up(account, told):
                            yield notice
                    elif not isinstance(note.body, Event):
                        yield _passing(note.job_id, note.body)
                    elif believed := await self._believe(account, note.body, note.job):
                        done = note.body.type is EventType.DONE
                        (told.discard if done else told.add)(note.job_id)
                        yield believed
            finally:
                del self._told[mailbox]

    async def _catch_up(self, account: Account, told: set[str]) -> AsyncGenerator[Notice, None]:
        """The ends of jobs that were told of, then every open job; `told` is brought up to date."""
        for job_id in sorted(told):
            for event in await self._events_after(account, job_id, 0):
                if event.type is EventType.DONE:
                    told.discard(job_id)
                    yield await self._tell(account, event)
        cursor: str | None = None
        while True:
            page = await self._jobs.list(account, filters=OPEN, cursor=cursor, limit=100)
            for view in page.items:
                told.add(view.job.id)
                yield Snapshot(view)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def wait(self, account: Account, job_id: str, *, timeout: float) -> JobView:
        """The job at its end, or as it is after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(
                self.job(account, job_id, previews=False)
            ) as notices:  # fmt: skip
                async for notice in notices:
                    if isinstance(notice, Done):
                        return notice.view
        except TimeoutError:
            pass
        return await self._jobs.get(account, job_id)

    async def preview(self, account: Account, job_id: str) -> Preview | None:
        """The latest picture of a running job, if there is one."""
        view = await self._jobs.get(account, job_id)
        if view.job.state in TERMINAL:
            return None
        return await self._signals.preview(job_id, view.job.attempt)

    @contextlib.contextmanager
    def _listen(self, job_id: str, *, previews: bool) -> Iterator[Mailbox]:
        with self._signals.listen_job(job_id, previews=previews) as mailbox:
            self._waiting.setdefault(job_id, set()).add(mailbox)
            try:
                yield mailbox
            finally:
                waiting = self._waiting[job_id]
                waiting.discard(mailbox)
                if not waiting:
                    del self._waiting[job_id]

    async def _events_after(self, account: Account, job_id: str, seq: int) -> list[Event]:
        return await self._db.read(lambda tx: job_rows.events_after(tx, account.id, job_id, seq))

    async def _tell(self, account: Account, event: Event, job: Job | None = None) -> Notice:
        """`job`: the finished job, if the signal carried it."""
        if event.type is not EventType.DONE:
            return Durable(event)
        if job is not None:
            return Done(event, self._jobs.view(account, job))
        return Done(event, await self._end(account, event.job_id))

    async def _believe(self, account: Account, event: Event, job: Job | None) -> Notice | None:
        """What a signal tells. The end of a job is hearsay, unless it carries the job: the row must say so too."""
        if event.type is not EventType.DONE or job is not None:
            return await self._tell(account, event, job)
        with contextlib.suppress(NotFound):
            view = await self._end(account, event.job_id)
            if view.job.state in TERMINAL:
                return Done(event, view)
        return None

    async def _end(self, account: Account, job_id: str) -> JobView:
        """The finished job; listeners of one job share one reading."""
        task = self._ends.get(job_id)
        if task is None:
            task = asyncio.create_task(self._jobs.get(account, job_id))
            self._ends[job_id] = task
            task.add_done_callback(lambda _: self._ends.pop(job_id, None))
        return await asyncio.shield(task)


def _passing(job_id: str, body: Progress | Preview) -> Notice:
    return Moved(job_id, body) if isinstance(body, Progress) else Pictured(job_id, body)
