"""The accounts' lanes: counters and virtual time. Every change of a job's state passes through here."""

from math import inf

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


_SERVABLE = """EXISTS (
  SELECT 1 FROM lane_needs n JOIN capabilities c ON c.requirement_id = n.requirement_id
    JOIN backends b ON b.inventory_hash = c.inventory_hash
  WHERE n.account_id = l.account_id AND n.queued > 0 AND b.state = 'online' AND b.removed_at IS NULL)"""
"""Some backend that takes work now could run a job that waits in the lane."""


async def _servable(tx: Reader, account_id: str) -> bool:
    row = await tx.one(
        f"SELECT {_SERVABLE} AS servable FROM lanes l WHERE l.account_id = :account", {"account": account_id}
    )
    return row is not None and bool(row["servable"])


async def _entered(tx: Reader, vtime: float) -> float:
    return entering(vtime, await greatest_start_tag(tx), await window(tx))


async def admit(tx: Tx, inventory_hash: str) -> None:
    """A backend with this inventory is about to be written down as online: lanes that only it serves enter anew.

    Also for one that is online with another inventory, which counts until the new one is written.
    """
    entry = await _entered(tx, -inf)
    rows = await tx.all(
        f"""SELECT l.account_id FROM lanes l
            WHERE l.queued > 0 AND l.running < l.cap AND l.vtime < :entry AND EXISTS (
              SELECT 1 FROM lane_needs n JOIN capabilities c
                ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
              WHERE n.account_id = l.account_id AND n.queued > 0)
            AND NOT {_SERVABLE} ORDER BY l.account_id"""
        + tx.dialect.for_update,
        {"entry": entry, "inventory": inventory_hash},
    )
    await tx.many(
        "UPDATE lanes SET vtime = :entry WHERE account_id = :account",
        [{"entry": entry, "account": row["account_id"]} for row in rows],
    )


async def enter(
    tx: Tx, account_id: str, requirement_id: str, *, jobs: int, cost: float, arrived: bool = True
) -> None:
    """Jobs become ready in a lane. `arrived` is false for one that comes back after a lost attempt.

    A lane whose jobs all waited for a backend that was away enters as an empty one does.
    """
    lane = await tx.one(
        "SELECT queued, vtime FROM lanes WHERE account_id = :account" + tx.dialect.for_update,
        {"account": account_id},
    )
    if lane is None:
        raise LookupError("an account without a lane")
    vtime = await _entered(tx, lane["vtime"])
    if vtime > lane["vtime"] and lane["queued"] and await _servable(tx, account_id):
        vtime = lane["vtime"]
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
        vtime = await _entered(tx, vtime)
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
