"""What operators see of all accounts: the one place whose queries on jobs have no owner's filter."""

from dataclasses import dataclass
from typing import Any, Final

from comfy_api_service.db.base import Reader, dumps
from comfy_api_service.db.jobs import FEW, with_artifacts
from comfy_api_service.db.records import JOB_COLUMNS
from comfy_api_service.domain.job import SHOWN, Job, State, Status

_OPEN: Final = "SELECT id FROM jobs WHERE state IN ('dispatched', 'executing', 'storing') AND state = "
_UNSUCCESSFUL: Final = "SELECT id FROM jobs WHERE state IN ('failed', 'canceled') AND state = "
_NEWEST: Final = " AND id < :before ORDER BY id DESC LIMIT :limit"
_RARE: Final = {
    State.READY: "SELECT id FROM jobs WHERE state = 'ready'",
    State.DISPATCHED: f"{_OPEN}'dispatched'",
    State.EXECUTING: f"{_OPEN}'executing'",
    State.STORING: f"{_OPEN}'storing'",
    State.SUCCEEDED: f"SELECT id FROM (SELECT id FROM jobs WHERE state = 'succeeded'{_NEWEST}) AS succeeded",
    State.FAILED: f"SELECT id FROM ({_UNSUCCESSFUL}'failed'{_NEWEST}) AS failed",
    State.CANCELED: f"SELECT id FROM ({_UNSUCCESSFUL}'canceled'{_NEWEST}) AS canceled",
}
"""Conditions word by word as those of the partial indexes: only then are these used."""
_LAST: Final = "job_~"
"""After every job's id."""


async def jobs_of_all(
    tx: Reader, statuses: frozenset[Status], *, before: str | None, limit: int
) -> list[Job]:
    """Newest first; `before` is the last job's id of the page before. No statuses: any."""
    where = "j.id < :before"
    params: dict[str, Any] = {"before": before or _LAST, "limit": limit}
    states = [state for state, status in SHOWN.items() if status in statuses]
    if states and _RARE.keys() >= set(states) and (State.READY not in states or await _few_queued(tx)):
        where += f" AND j.id IN ({' UNION ALL '.join(_RARE[state] for state in states)})"
    elif states:
        params["states"] = dumps(states)
        where += f" AND {tx.dialect.among('j.state', 'states')}"
    rows = await tx.all(
        f"SELECT {JOB_COLUMNS} FROM jobs j WHERE {where} ORDER BY j.id DESC LIMIT :limit", params
    )
    return await with_artifacts(tx, rows)


async def _few_queued(tx: Reader) -> bool:
    """Where many are, the newest are among the newest jobs."""
    row = await tx.one("SELECT coalesce(sum(queued), 0) AS queued FROM lanes")
    return row is None or row["queued"] <= FEW


@dataclass(frozen=True, slots=True)
class People:
    """`by_tier`: accounts that may call; `disabled` are counted apart. `keys` can be used."""

    by_tier: dict[str, int]
    disabled: int
    administrators: int
    keys: int


async def people(tx: Reader, now: float) -> People:
    rows = await tx.all(
        """SELECT tier, sum(CASE WHEN disabled_at IS NULL THEN 1 ELSE 0 END) AS enabled,
             sum(CASE WHEN disabled_at IS NULL THEN 0 ELSE 1 END) AS disabled,
             sum(CASE WHEN disabled_at IS NULL AND role = 'admin' THEN 1 ELSE 0 END) AS administrators
           FROM accounts WHERE username IS NOT NULL GROUP BY tier ORDER BY tier"""
    )
    keys = await tx.one(
        """SELECT count(*) AS n FROM api_keys k JOIN accounts a ON a.id = k.account_id
           WHERE k.revoked_at IS NULL AND a.disabled_at IS NULL
             AND (k.expires_at IS NULL OR k.expires_at > :now)""",
        {"now": now},
    )
    return People(
        {row["tier"]: int(row["enabled"]) for row in rows if row["enabled"]},
        sum(int(row["disabled"]) for row in rows),
        sum(int(row["administrators"]) for row in rows),
        int(keys["n"]) if keys else 0,
    )


@dataclass(frozen=True, slots=True)
class Produced:
    """What all accounts used, by the sums of the quota ledger."""

    images: int
    gpu_seconds: float

    def __add__(self, other: "Produced") -> "Produced":
        return Produced(self.images + other.images, self.gpu_seconds + other.gpu_seconds)


NOTHING: Final = Produced(0, 0.0)


@dataclass(frozen=True, slots=True)
class Day:
    """A UTC day of all accounts; `final`: all jobs that were submitted on it have ended."""

    produced: Produced
    final: bool


async def on_day(tx: Reader, day: str) -> Day:
    # One at a time: for a list, whose length no plan knows, PostgreSQL reads the whole table.
    row = await tx.one(
        """SELECT coalesce(sum(charged), 0) AS images, coalesce(sum(gpu_seconds), 0) AS seconds,
             coalesce(sum(reserved), 0) AS reserved FROM usage_days WHERE day = :day""",
        {"day": day},
    )
    if row is None:
        return Day(NOTHING, final=True)
    return Day(Produced(int(row["images"]), float(row["seconds"])), final=row["reserved"] == 0)
