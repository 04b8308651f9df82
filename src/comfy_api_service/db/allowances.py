"""What accounts may still submit: jobs that wait and images of the day, decided where the job is written.

Each account's lane is locked before this is read, so whatever processes submit at once, and whatever becomes of
Redis, no more is admitted than is allowed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from comfy_api_service.db import lanes
from comfy_api_service.db.base import Dialect, Params, Row, dumps
from comfy_api_service.domain.submission import NewJob
from comfy_api_service.domain.times import utc_day


@dataclass(frozen=True, slots=True)
class WaitingFull:
    """The account has as many jobs waiting as it may."""

    waiting: int
    limit: int


@dataclass(frozen=True, slots=True)
class QuotaSpent:
    """The job's images are more than the account has left for the day."""

    used: int
    limit: int
    images: int


DayOf = tuple[str, str]
"""Account and UTC day."""


class Allowances:
    """Kept while a group is decided in order of arrival; what was admitted counts for those behind it."""

    def __init__(self, held: Mapping[str, lanes.Held], used: Mapping[DayOf, int]) -> None:
        self._waiting = {account: lane.queued for account, lane in held.items()}
        self._used = dict(used)

    def refusal(self, job: NewJob) -> WaitingFull | QuotaSpent | None:
        limits = job.limits
        waiting = self._waiting.get(job.account_id, 0)
        if limits.waiting is not None and waiting >= limits.waiting:
            return WaitingFull(waiting, limits.waiting)
        if limits.images_per_day is None:
            return None
        used = self._used.get(_day_of(job), 0)
        if used + job.images > limits.images_per_day:
            return QuotaSpent(used, limits.images_per_day, job.images)
        return None

    def admitted(self, job: NewJob) -> None:
        self._waiting[job.account_id] = self._waiting.get(job.account_id, 0) + 1
        self._used[_day_of(job)] = self._used.get(_day_of(job), 0) + job.images


def limited_days(jobs: Sequence[NewJob]) -> set[DayOf]:
    """The days whose use has to be known."""
    return {_day_of(job) for job in jobs if job.limits.images_per_day is not None}


def asking_used(dialect: Dialect, days: Collection[DayOf], *, locked: bool = True) -> tuple[str, Params]:
    """Asks what was used of the days; `locked`: so that what comes is the newest, to stand behind the lanes' lock.

    A day without a row may have got one while the lane was waited for: ask again.
    """
    return (
        f"""SELECT u.account_id, u.day, u.reserved + u.charged AS used FROM usage_days u
            WHERE {dialect.among("u.account_id", "accounts")} AND {dialect.among("u.day", "days")}
            ORDER BY u.account_id, u.day{dialect.locking("u") if locked else ""}""",
        {
            "accounts": dumps(sorted({account for account, _ in days})),
            "days": dumps(sorted({day for _, day in days})),
        },
    )


def used_of(rows: Sequence[Row]) -> dict[DayOf, int]:
    return {(row["account_id"], row["day"]): row["used"] for row in rows}


def _day_of(job: NewJob) -> DayOf:
    return job.account_id, utc_day(job.queued_at)
