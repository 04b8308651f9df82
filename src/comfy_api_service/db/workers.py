"""Workers: the counters by which they prove that they live.

A worker that is gone keeps its row, marked, until another one enters.
"""

from collections.abc import Collection
from dataclasses import dataclass

from comfy_api_service.db.base import Reader, Tx, dumps, loads

GONE = -1
"""The counter of a worker that left or was found dead."""
LIVING = "counter >= 0"


class StillAlive(Exception):
    """The worker has proved its life since it was read."""


@dataclass(frozen=True, slots=True)
class Living:
    """A worker that is not known to be gone; `scope`: ids of the backends that it may drive, None for any."""

    id: str
    node_id: str
    scope: frozenset[str] | None


async def register(
    tx: Tx, worker_id: str, *, node_id: str, scope: Collection[str] | None, now: float, alone: bool
) -> None:
    """Enter a worker, or one that was taken for gone anew, or that did not hear that it was entered. `alone`: a lock
    proves that no other lives, so their rows can go. `scope`: ids of the backends that it may drive, None for any.
    """
    await tx.lock("backends")
    if alone:
        await tx.run("UPDATE backends SET worker_id = NULL")
    await tx.run("DELETE FROM workers" if alone else f"DELETE FROM workers WHERE NOT {LIVING}")
    await tx.run(
        """INSERT INTO workers (id, node_id, counter, started_at, scope)
           VALUES (:id, :node, 0, :now, :scope)
           ON CONFLICT (id) DO UPDATE SET node_id = excluded.node_id, started_at = excluded.started_at,
             scope = excluded.scope""",
        {
            "id": worker_id,
            "node": node_id,
            "now": now,
            "scope": None if scope is None else dumps(sorted(scope)),
        },
    )


async def living(tx: Reader) -> list[Living]:
    rows = await tx.all(f"SELECT id, node_id, scope FROM workers WHERE {LIVING} ORDER BY id")
    return [
        Living(row["id"], row["node_id"], None if row["scope"] is None else frozenset(loads(row["scope"])))
        for row in rows
    ]


async def prove_life(tx: Tx, worker_id: str) -> bool:
    """Raise the worker's counter; False if it was replaced."""
    touched = await tx.run(
        f"UPDATE workers SET counter = counter + 1 WHERE id = :id AND {LIVING}", {"id": worker_id}
    )
    return touched == 1


async def counters(tx: Reader) -> dict[str, int]:
    """The counters of all workers that are not known to be gone."""
    rows = await tx.all(f"SELECT id, counter FROM workers WHERE {LIVING}")
    return {row["id"]: row["counter"] for row in rows}


async def bury(tx: Tx, worker_id: str, counter: int | None = None) -> None:
    """A worker is gone, and others may have its backends.

    `counter`: where it stood all the time that it was watched. Raises `StillAlive` if it does not any more: then
    nothing must be committed.
    """
    await tx.lock("backends")
    await tx.run(
        "UPDATE backends SET worker_id = NULL, state = 'offline' WHERE worker_id = :id", {"id": worker_id}
    )
    seen = "" if counter is None else " AND counter = :counter"
    params = {"id": worker_id} if counter is None else {"id": worker_id, "counter": counter}
    touched = await tx.run(f"UPDATE workers SET counter = {GONE} WHERE id = :id{seen}", params)
    if not touched and counter is not None:
        raise StillAlive
