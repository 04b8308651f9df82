"""The accounts' lanes: counters and virtual time. Every change of a job's state passes through here."""

from comfy_api_service.db.base import Reader, Tx
from comfy_api_service.domain.scheduling import WINDOW_JOBS, entering

DEFAULT_COST = 10.0
"""Seconds; used until something was measured."""


async def mean_cost(tx: Reader) -> float:
    """Seconds that a job took of a backend, over the last ones of every kind."""
    row = await tx.one("SELECT seconds FROM timings WHERE key = 'all'")
    return max(row["seconds"], 0.001) if row else DEFAULT_COST


async def window(tx: Reader) -> float:
    return WINDOW_JOBS * await mean_cost(tx)


async def greatest_start_tag(tx: Reader) -> float:
    row = await tx.one("SELECT max(start_tag) AS v FROM workers")
    return (row["v"] or 0.0) if row else 0.0


async def enter(
    tx: Tx, account_id: str, requirement_id: str, *, jobs: int, cost: float, arrived: bool = True
) -> None:
    """Jobs become ready in a lane. `arrived` is false for one that comes back after a lost attempt."""
    lane = await tx.one(
        "SELECT queued, vtime FROM lanes WHERE account_id = :account" + tx.dialect.for_update,
        {"account": account_id},
    )
    if lane is None:
        raise LookupError("an account without a lane")
    vtime = lane["vtime"]
    if lane["queued"] == 0:
        vtime = entering(vtime, await greatest_start_tag(tx), await window(tx))
    entered = jobs if arrived else 0
    await tx.run(
        """UPDATE lanes SET queued = queued + :jobs, queued_cost = queued_cost + :cost, vtime = :vtime,
           entered = entered + :entered, entered_cost = entered_cost + :entered_cost WHERE account_id = :account""",
        {"account": account_id, "jobs": jobs, "cost": cost, "vtime": vtime, "entered": entered,
         "entered_cost": cost if arrived else 0.0},
    )  # fmt: skip
    await tx.run(
        """INSERT INTO lane_needs (account_id, requirement_id, queued) VALUES (:account, :requirement, :jobs)
           ON CONFLICT (account_id, requirement_id) DO UPDATE SET queued = lane_needs.queued + excluded.queued""",
        {"account": account_id, "requirement": requirement_id, "jobs": jobs},
    )


async def leave(tx: Tx, account_id: str, requirement_id: str, *, cost: float) -> None:
    """A ready job leaves its lane: claimed, canceled, expired."""
    await tx.run(
        """UPDATE lanes SET queued = queued - 1,
           queued_cost = CASE WHEN queued = 1 THEN 0 ELSE queued_cost - :cost END WHERE account_id = :account""",
        {"account": account_id, "cost": cost},
    )
    params = {"account": account_id, "requirement": requirement_id}
    await tx.run(
        "UPDATE lane_needs SET queued = queued - 1 WHERE account_id = :account AND requirement_id = :requirement",
        params,
    )
    await tx.run(
        """DELETE FROM lane_needs
           WHERE account_id = :account AND requirement_id = :requirement AND queued = 0""",
        params,
    )


async def release_slot(tx: Tx, account_id: str) -> None:
    """A job of the account holds no backend any more; a lane that was at its cap enters anew."""
    lane = await tx.one(
        "SELECT running, cap, vtime FROM lanes WHERE account_id = :account" + tx.dialect.for_update,
        {"account": account_id},
    )
    if lane is None:
        raise LookupError("an account without a lane")
    vtime = lane["vtime"]
    if lane["running"] >= lane["cap"]:
        vtime = entering(vtime, await greatest_start_tag(tx), await window(tx))
    await tx.run(
        "UPDATE lanes SET running = running - 1, vtime = :vtime WHERE account_id = :account",
        {"account": account_id, "vtime": vtime},
    )


async def correct(tx: Tx, account_id: str, *, seconds: float) -> None:
    """Move a lane's virtual time by seconds of a backend over its weight: real less estimated, or given back."""
    await tx.run(
        "UPDATE lanes SET vtime = vtime + :seconds / weight WHERE account_id = :account",
        {"account": account_id, "seconds": seconds},
    )
