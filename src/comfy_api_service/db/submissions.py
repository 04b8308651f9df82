"""Submissions that arrive together commit together: the one door by which jobs enter.

`Submissions.add` answers after the commit. A fault of the group makes it run again one by one, so that each
submission fails alone.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import structlog

from comfy_api_service.db.base import CommitUnknown, Database
from comfy_api_service.db.insertion import Outcome, Written, insert
from comfy_api_service.domain.errors import ServiceError, Unavailable
from comfy_api_service.domain.submission import NewJob

log = structlog.get_logger()

GROUP = 200
"""Most submissions in one transaction."""
GATHER_SECONDS = 0.01
"""The longest that a group is waited for while more and more arrive."""
QUIET_SECONDS = 0.001
"""Nobody arrives for so long: those who were answered take their time, and a group is written without them."""
ANSWER_SECONDS = 8.0
"""The longest that a caller waits: a group that the database holds up would hold up those behind it twice as long."""
MOST_NEEDS = 4096
"""Needs that are remembered; then all are forgotten, and asked for again."""
DOUBT_SECONDS = 0.2
"""Before a group is looked for that may have been written: the connection was lost just now."""


class Submissions:
    """Groups what arrives while the previous group is being written."""

    def __init__(
        self,
        db: Database,
        *,
        queue_limit: int,
        far_from_limit: Callable[[], bool] = lambda: False,
        on_writing: Callable[[], bool] = lambda: False,
    ) -> None:
        """`queue_limit` is the most jobs that may wait, over all accounts; `far_from_limit`: so few do that they
        need not be counted now.

        `on_writing` is called just before a group is handed to a database of one writer: whom it wakes stands
        behind the group in the line, finds it without another round, and shares its commit. It tells whether
        there was somebody.
        """
        self._db = db
        self._on_writing = on_writing
        self._queue_limit = queue_limit
        self._far_from_limit = far_from_limit
        self._arrived: list[tuple[NewJob, asyncio.Future[Outcome]]] = []
        self._awaited = 0
        """A group is gathered until it has so many."""
        self._all_here = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        self._known_needs: set[str] = set()
        """Needs that were seen in the database: whether they are still there is asked with all else."""

    async def add(self, job: NewJob) -> Outcome:
        """Durable when it returns. A caller that leaves cancels nothing.

        Raises `Unavailable` after `ANSWER_SECONDS`: what is being written then may be there later, what is not
        will not be.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        mine = (job, future)
        self._arrived.append(mine)
        if len(self._arrived) >= self._awaited:
            self._all_here.set()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="submissions")
        limit = loop.call_later(ANSWER_SECONDS, self._give_up, mine)
        try:
            return await future
        finally:
            limit.cancel()

    def _give_up(self, late: tuple[NewJob, asyncio.Future[Outcome]]) -> None:
        self._arrived = [one for one in self._arrived if one is not late]
        if not late[1].done():
            late[1].set_exception(Unavailable("The database does not answer now."))

    async def _flush(self) -> None:
        try:
            while self._arrived:
                group, self._arrived = self._arrived[:GROUP], self._arrived[GROUP:]
                await self._write(group)
                await self._gather(len(group))
        finally:
            self._flushing = None

    async def _gather(self, answered: int) -> None:
        """Wait for those who were just answered, when they come again at once, beside those who wait already.

        Else many small groups pay for a transaction each. Two halves that take turns were no faster: one is
        checked while the other is written, and each has to wait for the loop at every step.
        """
        self._awaited = min(GROUP, answered + len(self._arrived))
        until, known = time.monotonic() + GATHER_SECONDS, -1
        while known < len(self._arrived) < self._awaited and time.monotonic() < until:
            known = len(self._arrived)
            self._all_here.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._all_here.wait()

    async def _write(self, group: Sequence[tuple[NewJob, asyncio.Future[Outcome]]]) -> None:
        jobs = [job for job, _ in group]
        try:
            outcomes = await self._enter(jobs)
        except Exception as fault:  # noqa: BLE001 - it belongs to whoever waits for the answer
            if len(group) == 1 or isinstance(fault, ServiceError):
                for _, future in group:
                    if not future.done():
                        future.set_exception(fault)
                        future.exception()  # seen, also when its caller has left
                return
            for one in group:
                await self._write([one])
            return
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _enter(self, jobs: Sequence[NewJob]) -> list[Outcome]:
        known = self._known_needs & {job.requirement.id for job in jobs}
        try:
            outcomes = await self._insert(jobs, known)
        except LookupError:
            if not known:
                raise
            self._known_needs.clear()
            outcomes = await self._insert(jobs, set())
        if len(self._known_needs) > MOST_NEEDS:
            self._known_needs.clear()
        self._known_needs.update(
            job.requirement.id
            for job, outcome in zip(jobs, outcomes, strict=True)
            if isinstance(outcome, Written)
        )
        return outcomes

    async def _insert(self, jobs: Sequence[NewJob], known: set[str]) -> list[Outcome]:
        limit, far = self._queue_limit, self._far_from_limit()
        followed = self._db.dialect.one_writer and self._on_writing()
        try:
            return await self._db.write(
                lambda tx: insert(tx, jobs, queue_limit=limit, far_from_limit=far, known_needs=known),
                followed=followed,
            )
        except CommitUnknown:
            log.warning("submissions_in_doubt", jobs=len(jobs))
        await asyncio.sleep(DOUBT_SECONDS)
        return await self._db.write(
            lambda tx: insert(tx, jobs, queue_limit=limit, far_from_limit=far, again=True)
        )
