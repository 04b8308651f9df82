"""What operators see of the whole: figures, all accounts' jobs, the audit log."""

from dataclasses import dataclass
from typing import Final

from comfy_api_service.db import audit, backends, counters, jobs, operators, workers
from comfy_api_service.db.audit import Entry
from comfy_api_service.db.base import Database, Reader
from comfy_api_service.db.counters import Load
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.db.operators import NOTHING, Day, People, Produced
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.job import Job, Status
from comfy_api_service.domain.times import utc_day
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.views import JobView, Page, paged

DAYS: Final = 30
OPEN_DAYS: Final = 2
"""Of the newest days: jobs may still be submitted on today and, for clocks differ, on yesterday."""


@dataclass(frozen=True, slots=True)
class Stats:
    """`backends`: how many are in each state; one that no living worker drives is offline."""

    people: People
    load: Load
    backends: dict[BackendState, int]
    today: Produced
    days: Produced
    """Of the last 30 days, today among them."""


class Overview:
    def __init__(self, db: Database, jobs: Jobs, clock: Clock) -> None:
        self._db = db
        self._jobs = jobs
        self._clock = clock
        self._final: dict[str, Produced] = {}
        """Of days that change no more: a day has a row of every account, and is summed up once."""

    async def stats(self) -> Stats:
        """From counters and sums: it costs the same however many jobs there are."""
        now = self._clock.now()
        days = [utc_day(now - ago * 86_400.0) for ago in range(DAYS)]
        kept = {day: self._final[day] for day in days[OPEN_DAYS:] if day in self._final}

        async def read(tx: Reader) -> tuple[Stats, dict[str, Day]]:
            living = {worker.id for worker in await workers.living(tx)}
            states = dict.fromkeys(BackendState, 0)
            for backend in await backends.every(tx):
                states[backend.state if backend.worker_id in living else BackendState.OFFLINE] += 1
            asked = {day: await operators.on_day(tx, day) for day in days if day not in kept}
            stats = Stats(
                await operators.people(tx, now),
                await counters.load(tx),
                states,
                asked[days[0]].produced,
                sum([*kept.values(), *(day.produced for day in asked.values())], NOTHING),
            )
            return stats, asked

        stats, asked = await self._db.read(read)
        self._final = kept | {
            day: asked[day].produced for day in days[OPEN_DAYS:] if day in asked and asked[day].final
        }
        return stats

    async def jobs(
        self,
        by: Account,
        *,
        statuses: frozenset[Status],
        account_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page[JobView]:
        """All accounts', or one's, newest first, without their places in the queue. The cursor is the last job's id
        of the page before.
        """

        async def read(tx: Reader) -> list[Job]:
            if account_id is None:
                return await operators.jobs_of_all(tx, statuses, before=cursor, limit=limit + 1)
            return await jobs.page(tx, account_id, JobFilters(statuses), before=cursor, limit=limit + 1)

        page = paged(await self._db.read(read), limit, lambda job: job.id)
        return Page(tuple(await self._jobs.views(by, page.items)), page.next_cursor)

    async def audit(
        self, *, before: int | None, limit: int, action: str | None = None, about: str | None = None
    ) -> Page[Entry]:
        """Newest first; `about`: the actor or the target. The cursor is the last entry's id of the page before."""
        found = await self._db.read(
            lambda tx: audit.page(tx, before=before, limit=limit + 1, action=action, about=about)
        )
        return paged(found, limit, lambda entry: str(entry.id))
