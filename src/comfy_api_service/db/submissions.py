"""Submissions that arrive together commit together: the one door by which jobs enter.

`Submissions.add` answers after the commit. A fault of the group makes it run again one by one, so that each
submission fails alone.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from math import ceil

import structlog

from comfy_api_service.db import entry
from comfy_api_service.db.base import CommitUnknown, Database
from comfy_api_service.db.insertion import Outcome, Refusal, Written, insert, refusals
from comfy_api_service.domain.errors import ServiceError, Unavailable
from comfy_api_service.domain.submission import NewJob

log = structlog.get_logger()

GROUP = 200
"""Most submissions in one transaction."""
UNDER_WAY = 2
"""Groups that are written at once where several writers are: the next is here while one is on the server."""
LEAST = 32
"""Fewer are not shared out among groups: each has its price, whatever is in it."""
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
    """Groups what arrives while others are being written."""

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
        self._most = 1 if db.dialect.one_writer else UNDER_WAY
        self._under_way: list[int] = []
        """How many are in each group that is being written."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._awaited = 0
        """A group is gathered until it has so many."""
        self._stirred = asyncio.Event()
        """Set when a group is full, and when one is back."""
        self._flushing: asyncio.Task[None] | None = None
        self._refusing = False
        """The latest group had some that were refused."""
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
        if len(self._arrived) == self._awaited:
            self._stirred.set()
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
        """Begin a group whenever one is full and may; beside none, content with what comes at once."""
        try:
            while self._arrived or self._under_way:
                free = self._most - len(self._under_way)
                if free and len(self._arrived) >= max(self._awaited, 1):
                    self._begin(max(self._awaited, ceil(len(self._arrived) / free), LEAST))
                elif self._under_way:
                    self._stirred.clear()
                    await self._stirred.wait()
                else:
                    await self._gather()
        finally:
            self._flushing = None

    def _begin(self, size: int) -> None:
        size = min(size, GROUP)
        group, self._arrived = self._arrived[:size], self._arrived[size:]
        self._under_way.append(len(group))
        self._awaited = max(self._awaited, len(group), LEAST)
        task = asyncio.create_task(self._write(group), name="a group of submissions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_back(self, size: int) -> None:
        """Those who are answered now are expected again at once; they and all others are shared out evenly."""
        callers = sum(self._under_way) + len(self._arrived)
        self._awaited = min(GROUP, callers, max(ceil(callers / self._most), LEAST))
        self._under_way.remove(size)
        self._stirred.set()

    async def _gather(self) -> None:
        """Wait until a group is full, while more and more arrive: many small ones would pay for a transaction each."""
        until, known = time.monotonic() + GATHER_SECONDS, -1
        while known < len(self._arrived) < self._awaited and time.monotonic() < until:
            known = len(self._arrived)
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._stirred.wait()
        self._awaited = min(self._awaited, len(self._arrived))

    async def _write(self, group: Sequence[tuple[NewJob, asyncio.Future[Outcome]]]) -> None:
        answers = await self._answers([job for job, _ in group])
        self._is_back(len(group))
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
                future.exception()  # seen, also when its caller has left
            else:
                future.set_result(answer)

    async def _answers(self, jobs: Sequence[NewJob]) -> Sequence[Outcome | Exception]:
        """What each caller is told, or raised."""
        try:
            return await self._enter(jobs)
        except Exception as fault:  # noqa: BLE001 - it belongs to whoever waits for the answer
            if len(jobs) == 1 or isinstance(fault, ServiceError):
                return [fault] * len(jobs)
        return [answer for job in jobs for answer in await self._answers([job])]

    async def _enter(self, jobs: Sequence[NewJob]) -> list[Outcome]:
        """After a refusal others are likely: those that need no lock are told first, and lock nothing."""
        refused: dict[str, Refusal] = {}
        if self._refusing and not self._db.dialect.one_writer:
            limit, far = self._queue_limit, self._far_from_limit()
            refused = await self._db.read(
                lambda tx: refusals(tx, jobs, queue_limit=limit, far_from_limit=far)
            )
        rest = [job for job in jobs if job.id not in refused]
        entered = iter(await self._enter_rest(rest) if rest else ())
        outcomes: list[Outcome] = [refused[job.id] if job.id in refused else next(entered) for job in jobs]
        self._refusing = any(isinstance(outcome, Refusal) for outcome in outcomes)
        return outcomes

    async def _enter_rest(self, jobs: Sequence[NewJob]) -> list[Outcome]:
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
        one_writer = self._db.dialect.one_writer
        followed = one_writer and self._on_writing()
        try:
            if far and not one_writer and entry.is_common(jobs, known):
                written = await self._db.write(lambda tx: entry.enter(tx, jobs), single=True)
                if written is not None:
                    return [*written]
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
