"""The pool's backends as the workers have written them down."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.backend import Backend, BackendState

_COLUMNS = """id, url, name, node_id, state, worker_id, draining, version, devices, memory, inventory_hash,
  resident_model, seen_at, manual"""


def _from_row(row: Row) -> Backend:
    return Backend(
        id=row["id"],
        url=row["url"],
        name=row["name"],
        state=BackendState(row["state"]),
        draining=bool(row["draining"]),
        version=row["version"],
        devices=tuple(loads(row["devices"]) or ()),
        memory=loads(row["memory"]) or {},
        inventory_hash=row["inventory_hash"],
        resident_model=row["resident_model"],
        seen_at=row["seen_at"],
        node_id=row["node_id"],
        worker_id=row["worker_id"],
        manual=bool(row["manual"]),
    )


async def every(tx: Reader) -> list[Backend]:
    rows = await tx.all(f"SELECT {_COLUMNS} FROM backends WHERE removed_at IS NULL ORDER BY name, id")
    return [_from_row(row) for row in rows]


async def enroll(
    tx: Tx,
    urls: Mapping[str, str],
    *,
    node_id: str,
    now: float,
    names: Sequence[str] | None = None,
    manual: bool = False,
) -> None:
    """Write backends down that settings or an operator (`manual`) name; `urls` by id. Who drives one that is there
    goes on with it.

    `names` are theirs, in order. None: each keeps the name that it has, or gets the next that is free.
    """
    await tx.lock("backends")
    rows = await tx.all("SELECT id, name FROM backends WHERE removed_at IS NULL")
    used = {row["id"]: row["name"] for row in rows}
    numbered = (f"comfyui-{number}" for number in count(1))
    wanted = iter(names) if names is not None else (name for name in numbered if name not in used.values())
    for backend_id, url in urls.items():
        used[backend_id] = next(wanted) if names is not None or backend_id not in used else used[backend_id]
        await tx.run(
            """INSERT INTO backends (id, url, name, node_id, state, added_at, manual)
               VALUES (:id, :url, :name, :node, 'offline', :now, :manual)
               ON CONFLICT (id) DO UPDATE SET url = excluded.url, name = excluded.name, removed_at = NULL,
                 manual = CASE WHEN backends.removed_at IS NULL AND backends.manual = 1 THEN 1
                   ELSE excluded.manual END""",
            {
                "id": backend_id,
                "url": url,
                "name": used[backend_id],
                "node": node_id,
                "now": now,
                "manual": int(manual),
            },
        )


_FREE = """removed_at IS NULL AND NOT EXISTS (
  SELECT 1 FROM workers w WHERE w.id = backends.worker_id AND w.counter >= 0)"""
"""No living worker drives the backend."""


async def take(tx: Tx, backend_id: str, worker_id: str) -> Backend | None:
    """Drive a backend from now on; None if somebody else does. It may be this worker's already: one that did not
    hear of the commit asks again.
    """
    await tx.lock("backends")
    row = await tx.one(
        f"""UPDATE backends SET worker_id = :worker, state = 'offline'
            WHERE id = :id AND ({_FREE} OR removed_at IS NULL AND worker_id = :worker) RETURNING {_COLUMNS}""",
        {"id": backend_id, "worker": worker_id},
    )
    return None if row is None else _from_row(row)


async def hold(tx: Tx, backend_id: str, worker_id: str) -> bool:
    """Lock a backend's row, before any lane's; False if another worker drives it."""
    row = await tx.one(
        "SELECT id FROM backends WHERE id = :id AND worker_id = :worker" + tx.dialect.locking("backends"),
        {"id": backend_id, "worker": worker_id},
    )
    return row is not None


async def release(tx: Tx, backend_id: str, worker_id: str) -> None:
    """Drive a backend no more; others may."""
    await tx.run(
        "UPDATE backends SET worker_id = NULL, state = 'offline' WHERE id = :id AND worker_id = :worker",
        {"id": backend_id, "worker": worker_id},
    )


async def remove(tx: Tx, backend_id: str, now: float) -> bool:
    """Take a backend off the list; who drives it lets go of it. False if it is not on the list."""
    await tx.lock("backends")
    touched = await tx.run(
        "UPDATE backends SET removed_at = :now, state = 'offline' WHERE id = :id AND removed_at IS NULL",
        {"id": backend_id, "now": now},
    )
    return touched == 1


async def set_draining(tx: Tx, backend_id: str, draining: bool) -> bool:
    """Whether it gets no more work; False if it is not on the list."""
    touched = await tx.run(
        "UPDATE backends SET draining = :draining WHERE id = :id AND removed_at IS NULL",
        {"id": backend_id, "draining": int(draining)},
    )
    return touched == 1


async def retire(tx: Tx, keep: Sequence[str], *, node_id: str | None, now: float) -> None:
    """Take those off the list that a machine's settings (None: any machine's) name no more and nobody drives."""
    await tx.lock("backends")
    await tx.run(
        f"""UPDATE backends SET removed_at = :now, state = 'offline'
            WHERE NOT ({tx.dialect.among("id", "keep")}) AND manual = 0 AND {_FREE}"""
        + ("" if node_id is None else " AND node_id = :node"),
        {"keep": dumps(list(keep)), "now": now, **({} if node_id is None else {"node": node_id})},
    )


async def describe(
    tx: Tx,
    backend_id: str,
    *,
    worker_id: str,
    state: BackendState,
    now: float,
    version: str | None = None,
    devices: Sequence[Mapping[str, Any]] | None = None,
    memory: Mapping[str, Any] | None = None,
    inventory_hash: str | None = None,
    breaker: Mapping[str, Any] | None = None,
) -> None:
    """Write what the worker that drives a backend knows of it now; what is None stays as it was."""
    await tx.run(
        """UPDATE backends SET state = :state, seen_at = CASE WHEN :seen = 1 THEN :now ELSE seen_at END,
             version = coalesce(:version, version), devices = coalesce(:devices, devices),
             memory = coalesce(:memory, memory), inventory_hash = coalesce(:inventory, inventory_hash),
             breaker = coalesce(:breaker, breaker)
           WHERE id = :id AND worker_id = :worker""",
        {
            "id": backend_id,
            "worker": worker_id,
            "state": state,
            "seen": int(state is not BackendState.OFFLINE),
            "now": now,
            "version": version,
            "devices": None if devices is None else dumps(list(devices)),
            "memory": None if memory is None else dumps(memory),
            "inventory": inventory_hash,
            "breaker": None if breaker is None else dumps(breaker),
        },
    )


async def forget_residency(tx: Tx, backend_id: str, worker_id: str) -> None:
    """A backend that restarted has nothing loaded."""
    await tx.run(
        """UPDATE backends SET residency = NULL, resident_model = NULL
           WHERE id = :id AND worker_id = :worker""",
        {"id": backend_id, "worker": worker_id},
    )
