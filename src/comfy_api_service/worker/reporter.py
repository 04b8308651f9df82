"""What a worker writes and announces: every write is fenced and retried until the database answers,
every announcement follows its commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from comfy_api_service.db import timings, transitions
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.transitions import Change, Ending
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.domain.job import JobError, Status
from comfy_api_service.signals.base import Note, Signals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.verdict import Lost

log = structlog.get_logger()
T = TypeVar("T")


class Reporter:
    def __init__(self, db: Database, signals: Signals, clock: Clock, metrics: Metrics) -> None:
        self._db = db
        self._signals = signals
        self._clock = clock
        self._metrics = metrics

    async def persist(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        """Write, however long the database is away: what happened on a backend must not be forgotten."""
        pause = 0.1
        while True:
            try:
                return await self._db.write(function)
            except Unavailable:
                log.warning("database_unavailable", retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    async def started(self, assignment: Assignment) -> bool:
        """The prompt executes; False if the attempt was replaced."""
        now = self._clock.now()
        change = await self.persist(lambda tx: transitions.started(tx, assignment.fence, now=now))
        if change is None:
            return False
        self._metrics.job_wait.observe(max(now - change.queued_at, 0.0))
        self.announce(assignment.job_id, change)
        return True

    async def storing(self, assignment: Assignment) -> bool:
        held = await self.persist(lambda tx: transitions.storing(tx, assignment.fence))
        if held:
            self._signals.wake()
        return held

    async def finish(
        self, assignment: Assignment, ending: Ending, measured: Mapping[str, float] | None = None
    ) -> Status | None:
        """End the job; how it ended (a cancel that came first wins), None if the attempt was replaced.

        `measured`: durations to learn from, in seconds by key.
        """
        now = self._clock.now()

        async def write(tx: Tx) -> Change | None:
            change = await transitions.finish(tx, assignment.fence, ending, now=now)
            if change is not None and measured:
                await timings.learn(tx, measured, now)
            return change

        change = await self.persist(write)
        if change is None:
            return None
        status = Status(change.events[-1].status)
        if status is Status.SUCCEEDED:
            self._metrics.job_duration.observe(max(now - change.queued_at, 0.0))
        self.announce(assignment.job_id, change)
        self._signals.wake()
        return status

    async def requeue(
        self, assignment: Assignment, lost: Lost, *, out_of_memory: JobError | None = None
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
                requirement_id=lost.requirement_id,
            )
        )
        if change is None:
            return False
        self.announce(assignment.job_id, change)
        self._signals.wake()
        return True

    async def give_up(self, job_id: str, ending: Ending) -> None:
        """End a job that waits."""
        now = self._clock.now()
        change = await self.persist(lambda tx: transitions.give_up(tx, job_id, ending, now=now))
        if change is not None:
            self.announce(job_id, change)

    def announce(self, job_id: str, change: Change) -> None:
        for event in change.events:
            self._signals.publish(Note(job_id, change.account_id, change.attempt, event))
            self._note(event, change)

    def _note(self, event: Event, change: Change) -> None:
        """Count and log; never the error's message, which may quote a node's own words."""
        told = {"job_id": event.job_id, "account": change.account_id, "attempt": change.attempt}
        if event.type is EventType.REQUEUED:
            log.info("job_requeued", reason=event.data["reason"], **told)
        if event.type is EventType.DONE:
            code = event.data.get("error", {}).get("code")
            self._metrics.jobs.labels(event.status).inc()
            if code is not None:
                self._metrics.failures.labels(code).inc()
                told["code"] = code
            seconds = round(event.at - change.queued_at, 3)
            log.info("job_ended", status=event.status, seconds=seconds, **told)

    def progress(self, assignment: Assignment, progress: Progress) -> None:
        self._signals.publish(Note(assignment.job_id, assignment.account_id, assignment.attempt, progress))

    def preview(self, assignment: Assignment, media_type: str, picture: bytes) -> None:
        self._signals.publish(
            Note(assignment.job_id, assignment.account_id, assignment.attempt, Preview(media_type, picture))
        )
