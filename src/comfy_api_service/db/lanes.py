"""The accounts' lanes: counters and virtual time. Every change of a job's state passes through here.

A lane is locked before the jobs in it; who holds it knows its row, and changes it once in a transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Self

from comfy_api_service.db.base import Dialect, Params, Part, Reader, Row, Tx, dumps
from comfy_api_service.domain.scheduling import WINDOW_JOBS, entering

DEFAULT_COST = 10.0
"""Seconds; used until something was measured."""
UNCAPPED = 2_147_483_647
"""A cap that nobody reaches: no NULL in the scheduler's comparisons."""
COLUMNS = "l.weight, l.cap, l.running, l.queued, l.queued_cost, l.entered, l.entered_cost, l.vtime"


@dataclass(frozen=True, slots=True)
class Held:
    """A lane as it was when it was locked."""

    account_id: str
    weight: float
    cap: int
    running: int
    queued: int
    queued_cost: float
    entered: int
    entered_cost: float
    vtime: float

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """From `account_id` and `COLUMNS`."""
        return cls(
            account_id=row["account_id"],
            weight=row["weight"],
            cap=row["cap"],
            running=row["running"],
            queued=row["queued"],
            queued_cost=row["queued_cost"],
            entered=row["entered"],
            entered_cost=row["entered_cost"],
            vtime=row["vtime"],
        )

    @property
    def enters_when_released(self) -> bool:
        """Whether it becomes ready by one running job less."""
        return self.queued > 0 and self.running >= self.cap


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where lanes enter that become ready after being empty or at their cap."""

    tags: Mapping[str, float]
    """Need → the greatest start tag given out by the backends that take work for it now."""
    window: float

    def enter(self, vtime: float, needs: Collection[str]) -> float:
        """The virtual time with these needs; nothing is changed by those that no backend takes work for."""
        return entering(
            vtime, max([self.tags[need] for need in needs if need in self.tags], default=-inf), self.window
        )


_ONLINE: Final = "b.state = 'online' AND b.removed_at IS NULL"
_FRONTIER: Final = f"""SELECT NULL AS need, seconds AS value FROM timings WHERE key = 'all'
UNION ALL SELECT c.requirement_id, max(b.start_tag) FROM capabilities c
  JOIN backends b ON b.inventory_hash = c.inventory_hash AND {_ONLINE}
WHERE {{wanted}} GROUP BY c.requirement_id"""


def asking_frontier(dialect: Dialect, needs: Collection[str]) -> tuple[str, Params]:
    """The query whose rows `frontier_of` takes."""
    return _FRONTIER.format(wanted=dialect.among("c.requirement_id", "needs")), {
        "needs": dumps(sorted(needs))
    }


def frontier_of(rows: Sequence[Row]) -> Frontier:
    values = {row["need"]: row["value"] for row in rows}
    return Frontier(window=window_of(values.pop(None, None)), tags=values)


async def joined(
    tx: Tx, arriving: Sequence[tuple[Held, Collection[str]]], edge: Frontier | None = None
) -> dict[str, float]:
    """The virtual times of lanes that jobs with these needs join, by account: ready ones keep theirs.

    A lane whose jobs all wait for a backend that is away enters as an empty one does. `edge`: if it was asked for.
    """
    if edge is None:
        edge = frontier_of(
            await tx.all(*asking_frontier(tx.dialect, {need for _, needs in arriving for need in needs}))
        )
    joining = {lane.account_id: edge.enter(lane.vtime, needs) for lane, needs in arriving}
    raised = [lane for lane, _ in arriving if lane.queued and joining[lane.account_id] > lane.vtime]
    ready = await _servable(tx, [lane.account_id for lane in raised])
    return joining | {lane.account_id: lane.vtime for lane in raised if lane.account_id in ready}


async def released(tx: Tx, lane: Held) -> float:
    """The virtual time of a lane that was at its cap and gets a slot back: it enters with all that waits in it."""
    rows = await tx.all(
        _FRONTIER.format(
            wanted="""c.requirement_id IN (
              SELECT n.requirement_id FROM lane_needs n WHERE n.account_id = :account AND n.queued > 0)"""
        ),
        {"account": lane.account_id},
    )
    edge = frontier_of(rows)
    return edge.enter(lane.vtime, edge.tags)


async def set_limits(tx: Tx, account_id: str, *, cap: int, weight: float) -> None:
    """A lane's cap and weight from now on. One that was at its cap and has room now enters anew."""
    row = await tx.one(
        f"SELECT l.account_id, {COLUMNS} FROM lanes l WHERE l.account_id = :account"
        + tx.dialect.locking("l"),
        {"account": account_id},
    )
    if row is None:
        raise LookupError("an account without a lane")
    lane = Held.from_row(row)
    enters = lane.enters_when_released and lane.running < cap
    await tx.run(
        "UPDATE lanes SET cap = :cap, weight = :weight, vtime = :vtime WHERE account_id = :account",
        {
            "account": account_id,
            "cap": cap,
            "weight": weight,
            "vtime": await released(tx, lane) if enters else lane.vtime,
        },
    )


_SERVABLE: Final = f"""EXISTS (
  SELECT 1 FROM lane_needs n JOIN capabilities c ON c.requirement_id = n.requirement_id
    JOIN backends b ON b.inventory_hash = c.inventory_hash
  WHERE n.account_id = l.account_id AND n.queued > 0 AND {_ONLINE})"""
"""Some backend that takes work now could run a job that waits in the lane."""


async def _servable(tx: Reader, account_ids: Sequence[str]) -> set[str]:
    if not account_ids:
        return set()
    rows = await tx.all(
        f"""SELECT l.account_id FROM lanes l
            WHERE {tx.dialect.among("l.account_id", "accounts")} AND {_SERVABLE}""",
        {"accounts": dumps(sorted(account_ids))},
    )
    return {row["account_id"] for row in rows}


async def admit(tx: Tx, backend_id: str, inventory_hash: str) -> None:
    """A backend with this inventory is about to be written down as online: lanes that only it serves enter anew.

    Also for one that is online with another inventory, which counts until the new one is written. Its row is
    held. It goes on from a start tag at which it fits among the others (`_UNMOVED`).
    """
    fit = await tx.one(_UNMOVED, {"id": backend_id, "inventory": inventory_hash})
    row = await tx.one(
        """UPDATE backends SET start_tag = CASE WHEN start_tag < :tag THEN :tag ELSE start_tag END
           WHERE id = :id RETURNING start_tag""",
        {"id": backend_id, "tag": max(fit["alike"] or 0.0, fit["shared"] or 0.0) if fit else 0.0},
    )
    if fit is None or row is None:
        raise LookupError("a backend that was never registered")
    entry = entering(-inf, row["start_tag"], window_of(fit["mean"]))
    rows = await tx.all(
        f"""SELECT l.account_id FROM lanes l
            WHERE l.queued > 0 AND l.running < l.cap AND l.vtime < :entry AND EXISTS (
              SELECT 1 FROM lane_needs n JOIN capabilities c
                ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
              WHERE n.account_id = l.account_id AND n.queued > 0)
            AND NOT {_SERVABLE} ORDER BY l.account_id"""
        + tx.dialect.locking("l"),
        {"entry": entry, "inventory": inventory_hash},
    )
    await tx.many(
        "UPDATE lanes SET vtime = :entry WHERE account_id = :account",
        [{"entry": entry, "account": row["account_id"]} for row in rows],
    )


_UNMOVED: Final = f"""WITH shared AS (
  SELECT max(t.tag) AS v, EXISTS (
    SELECT 1 FROM lane_needs n WHERE n.requirement_id = mine.requirement_id AND n.queued > 0) AS waits
  FROM capabilities mine JOIN capabilities c ON c.requirement_id = mine.requirement_id
    JOIN (SELECT b.inventory_hash, max(b.start_tag) AS tag FROM backends b WHERE {_ONLINE} GROUP BY b.inventory_hash) t
    ON t.inventory_hash = c.inventory_hash
  WHERE mine.inventory_hash = :inventory GROUP BY mine.requirement_id)
SELECT coalesce(min(CASE WHEN waits THEN v END), max(v)) AS shared, (
    SELECT max(b.start_tag) FROM backends b WHERE b.removed_at IS NULL AND (b.inventory_hash = :inventory
      OR b.inventory_hash = (SELECT own.inventory_hash FROM backends own WHERE own.id = :id))) AS alike,
  (SELECT seconds FROM timings WHERE key = 'all') AS mean FROM shared"""
"""The start tag from which a backend that comes with this inventory goes on, if its own is lower.

`shared`: the greatest one at which no need that waits, and that others serve, is entered for any later than
without it. So what only this backend serves does not go before those who wait for others too, for all that
was done while it was away; nor does a newcomer go behind them. If nothing waits: the greatest of the needs.
`alike`: of those that have the same inventory, or had it until now: they serve the same lanes.
"""


def window_of(mean: float | None) -> float:
    """The window of fairness; `mean`: seconds that a job took of a backend, over the last ones of every kind."""
    return WINDOW_JOBS * (DEFAULT_COST if mean is None else max(mean, 0.001))


def change(
    account_id: str,
    *,
    vtime: float,
    running: int = 0,
    queued: int = 0,
    cost: float = 0.0,
    entered: int = 0,
    entered_cost: float = 0.0,
    served: int = 0,
) -> dict[str, object]:
    """What `CHANGE` adds to a lane's counters, and its new virtual time. `cost` is that of the queued jobs;
    `served`: 1 when one of them was claimed.
    """
    return {
        "account": account_id,
        "vtime": vtime,
        "running": running,
        "queued": queued,
        "cost": cost,
        "entered": entered,
        "entered_cost": entered_cost,
        "served": served,
    }


CHANGE = """UPDATE lanes SET vtime = :vtime, running = running + :running, queued = queued + :queued,
  queued_cost = CASE WHEN queued + :queued = 0 THEN 0 ELSE queued_cost + :cost END,
  entered = entered + :entered, entered_cost = entered_cost + :entered_cost,
  served = CASE WHEN :served = 1 THEN 1 ELSE served END WHERE account_id = :account"""

NEED = """INSERT INTO lane_needs (account_id, requirement_id, queued) VALUES (:account, :requirement, :jobs)
ON CONFLICT (account_id, requirement_id) DO UPDATE SET queued = lane_needs.queued + excluded.queued"""


def need(account_id: str, requirement_id: str, jobs: int) -> dict[str, object]:
    """So many jobs more of a need wait in a lane."""
    return {"account": account_id, "requirement": requirement_id, "jobs": jobs}


def leave_need(account_id: str, requirement_id: str) -> tuple[Part, Part]:
    """One job of a need waits no more; a need without jobs is deleted, first, so that one row is touched once."""
    params = {"account": account_id, "requirement": requirement_id}
    mine = "account_id = :account AND requirement_id = :requirement"
    return (
        (f"DELETE FROM lane_needs WHERE {mine} AND queued = 1", params),
        (f"UPDATE lane_needs SET queued = queued - 1 WHERE {mine} AND queued > 1", params),
    )
