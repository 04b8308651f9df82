"""What a worker writes and announces: every write is fenced and retried until the database answers,
every announcement follows its commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from comfy_api_service.db import calls, transitions, work
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.endings import Ending
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.events import Preview, Progress
from comfy_api_service.domain.job import JobError, Status
from comfy_api_service.services.announce import Announcer
from comfy_api_service.signals.base import Note, Signals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import Assignment, Attempted
from comfy_api_service.worker.verdict import Lost

log = structlog.get_logger()
T = TypeVar("T")


class Reporter:
    def __init__(
        self, db: Database, signals: Signals, announcer: Announcer, clock: Clock, metrics: Metrics
    ) -> None:
        self._db = db
        self._calls = not db.dialect.one_writer
        self._announcer = announcer
        self._signals = signals
        self._clock = clock
        self._metrics = metrics

    async def persist(self, function: Callable[[Tx], Awaitable[T]], *, single: bool = False) -> T:
        """Write, however long the database is away: what happened on a backend must not be forgotten."""
        pause = 0.1
        while True:
            try:
                return await self._db.write(function, single=single)
            except Unavailable:
                log.warning("database_unavailable", retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    async def started(self, assignment: Assignment) -> bool:
        """The prompt executes; False if the attempt was replaced."""
        now, fence, change = self._clock.now(), assignment.fence, None
        if self._calls:
            change = await self.persist(lambda tx: calls.started(tx, fence, now=now), single=True)
        if change is None:
            change = await self.persist(lambda tx: transitions.started(tx, fence, now=now))
        if change is None:
            return False
        self._metrics.job_wait.observe(max(now - change.queued_at, 0.0))
        self._announcer.announce(assignment.job_id, change)
        return True

    async def storing(self, assignment: Assignment) -> bool:
        held = await self.persist(lambda tx: transitions.storing(tx, assignment.fence))
        if held:
            self._signals.wake()
        return held

    async def finish(
        self, assignment: Attempted, ending: Ending, measured: Mapping[str, float] | None = None
    ) -> Status | None:
        """End the job; how it ended (a cancel that came first wins), None if the attempt was replaced.

        `measured`: durations to learn from, in seconds by key.
        """
        now, fence, change = self._clock.now(), assignment.fence, None
        if self._calls:
            change = await self.persist(
                lambda tx: calls.finish(tx, fence, ending, now=now, measured=measured), single=True
            )
        if change is None:
            change = await self.persist(
                lambda tx: transitions.finish(tx, fence, ending, now=now, measured=measured)
            )
        if change is None:
            return None
        status = Status(change.events[-1].status)
        if status is Status.SUCCEEDED:
            self._metrics.job_duration.observe(max(now - change.queued_at, 0.0))
        self._announcer.announce(assignment.job_id, change)
        self._signals.wake()
        return status

    async def requeue(
        self, assignment: Attempted, lost: Lost, *, out_of_memory: JobError | None = None
    ) -> bool:
        """The attempt is lost; the job waits again, or ends. False if the attempt was replaced."""
        now = self._clock.now()
        change = await self.persist(
            lambda tx: transitions.requeue(
                tx,
                assignment.fence,
                reason=lost.reason,
                now=now,
                backend_died=lost.backend_died,
                out_of_memory=out_of_memory,
                unsent=lost.unsent,
                refused=lost.refused,
                requirement_id=lost.requirement_id,
            )
        )
        if change is None:
            return False
        self._announcer.announce(assignment.job_id, change)
        self._signals.wake()
        return True

    async def give_up(self, job_id: str, ending: Ending) -> None:
        """End a job that waits."""
        now = self._clock.now()
        change = await self.persist(lambda tx: transitions.give_up(tx, job_id, ending, now=now))
        if change is not None:
            self._announcer.announce(job_id, change)

    async def left_over(self, assignment: Attempted, keys: Sequence[str], *, mine: bool = False) -> list[str]:
        """Those of the attempt's files that nobody wants: none while it is open, since who adopted it stores under
        the same keys, unless it is `mine`; and none that rows name: a commit whose answer was lost may have kept them.
        """
        fence = assignment.fence
        return await self.persist(lambda tx: work.left_over(tx, fence, keys, mine=mine))

    async def is_closed(self, assignment: Assignment) -> bool:
        """Whether nobody wants the attempt's prompt any more."""
        prompt_id = assignment.prompt_id
        return (await self.persist(lambda tx: work.closed_among(tx, [prompt_id]))).get(prompt_id, True)

    def progress(self, assignment: Assignment, progress: Progress) -> None:
        self._signals.publish(Note(assignment.job_id, assignment.account_id, assignment.attempt, progress))

    def preview(self, assignment: Assignment, media_type: str, picture: bytes) -> None:
        self._signals.publish(
            Note(assignment.job_id, assignment.account_id, assignment.attempt, Preview(media_type, picture))
        )
