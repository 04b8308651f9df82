"""Counters and what they count. Counters change with the jobs; the reconciler proves that they agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comfy_api_service.db.base import Reader, Tx


@dataclass(frozen=True, slots=True)
class Load:
    """The pool's load as the counters tell it; `active_weight` sums the weights of lanes with waiting jobs."""

    queued: int
    queued_cost: float
    running: int
    active_weight: float
    oldest_queued_at: float | None
    by_tier: Mapping[str, int]


async def load(tx: Reader) -> Load:
    tiers = await tx.all(
        """SELECT a.tier, sum(l.queued) AS queued, sum(l.queued_cost) AS cost, sum(l.running) AS running,
             sum(CASE WHEN l.queued > 0 THEN l.weight ELSE 0 END) AS weight
           FROM lanes l JOIN accounts a ON a.id = l.account_id GROUP BY a.tier"""
    )
    oldest = await tx.one("SELECT min(queued_at) AS at FROM jobs WHERE state = 'ready'")
    return Load(
        queued=sum(int(row["queued"]) for row in tiers),
        queued_cost=sum(row["cost"] for row in tiers),
        running=sum(int(row["running"]) for row in tiers),
        active_weight=sum(row["weight"] for row in tiers),
        oldest_queued_at=oldest["at"] if oldest else None,
        by_tier={row["tier"]: int(row["queued"]) for row in tiers},
    )


OPEN_SECONDS: Final = """SELECT coalesce(sum(CASE
  WHEN state = 'dispatched' THEN cost
  WHEN state = 'executing' AND cost > :now - started_at THEN cost - (:now - started_at)
  ELSE 0 END), 0) AS seconds
FROM jobs WHERE state IN ('dispatched', 'executing', 'storing')"""


async def open_seconds(tx: Reader, now: float) -> float:
    """Seconds of work that backends still have before them, by estimated costs."""
    row = await tx.one(OPEN_SECONDS, {"now": now})
    return float(row["seconds"]) if row else 0.0


@dataclass(frozen=True, slots=True)
class LaneState:
    """One lane's counters, for estimates."""

    weight: float
    queued: int
    queued_cost: float
    entered: int
    entered_cost: float


async def lane(tx: Reader, account_id: str) -> LaneState | None:
    row = await tx.one(
        "SELECT weight, queued, queued_cost, entered, entered_cost FROM lanes WHERE account_id = :account",
        {"account": account_id},
    )
    if row is None:
        return None
    return LaneState(row["weight"], row["queued"], row["queued_cost"], row["entered"], row["entered_cost"])


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that does not say what it counts: a bug, wherever it is found."""

    account_id: str
    counter: str
    says: int
    counted: int


async def drift(tx: Reader) -> list[Drift]:
    """Read counters and counts in one statement and report where they differ."""
    rows = await tx.all(
        """SELECT l.account_id, 'queued' AS counter, l.queued AS says,
             (SELECT count(*) FROM jobs j WHERE j.account_id = l.account_id AND j.state = 'ready') AS counted
           FROM lanes l
           UNION ALL
           SELECT l.account_id, 'running', l.running, coalesce(r.counted, 0)
           FROM lanes l LEFT JOIN (
             SELECT account_id, count(*) AS counted FROM jobs
             WHERE state IN ('dispatched', 'executing', 'storing') AND state <> 'storing' GROUP BY account_id
           ) r ON r.account_id = l.account_id
           UNION ALL
           SELECT n.account_id, n.requirement_id, n.queued,
             (SELECT count(*) FROM jobs j WHERE j.account_id = n.account_id
              AND j.requirement_id = n.requirement_id AND j.state = 'ready')
           FROM lane_needs n"""
    )
    return [
        Drift(row["account_id"], row["counter"], row["says"], row["counted"])
        for row in rows
        if row["says"] != row["counted"]
    ]


async def mend(tx: Tx) -> None:
    """Set every counter to what it counts, while nobody else changes one."""
    if not tx.dialect.one_writer:
        await tx.run("LOCK TABLE lanes IN EXCLUSIVE MODE")
    await tx.run(
        """UPDATE lanes SET
             queued = (SELECT count(*) FROM jobs j WHERE j.account_id = lanes.account_id AND j.state = 'ready'),
             queued_cost = (SELECT coalesce(sum(j.cost), 0) FROM jobs j
               WHERE j.account_id = lanes.account_id AND j.state = 'ready'),
             running = (SELECT count(*) FROM jobs j WHERE j.account_id = lanes.account_id
               AND j.state IN ('dispatched', 'executing'))"""
    )
    await tx.run("DELETE FROM lane_needs")
    await tx.run(
        """INSERT INTO lane_needs (account_id, requirement_id, queued)
           SELECT account_id, requirement_id, count(*) FROM jobs WHERE state = 'ready'
           GROUP BY account_id, requirement_id"""
    )
