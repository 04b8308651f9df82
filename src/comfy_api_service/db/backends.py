"""The pool's backends as the workers have written them down."""

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.backend import Backend, BackendState

_COLUMNS = """id, url, name, node_id, state, worker_id, draining, version, devices, memory, inventory_hash,
  resident_model, seen_at"""


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
    )


async def every(tx: Reader) -> list[Backend]:
    rows = await tx.all(f"SELECT {_COLUMNS} FROM backends WHERE removed_at IS NULL ORDER BY name, id")
    return [_from_row(row) for row in rows]


async def register(
    tx: Tx, *, backend_id: str, url: str, name: str, node_id: str, worker_id: str, now: float
) -> Backend:
    """Write a backend down, or take up the one that has this identity; driven by `worker_id` from now on."""
    await tx.run(
        """INSERT INTO backends (id, url, name, node_id, state, worker_id, added_at)
           VALUES (:id, :url, :name, :node, 'offline', :worker, :now)
           ON CONFLICT (id) DO UPDATE SET url = excluded.url, name = excluded.name, worker_id = excluded.worker_id,
             state = 'offline', removed_at = NULL""",
        {"id": backend_id, "url": url, "name": name, "node": node_id, "worker": worker_id, "now": now},
    )
    row = await tx.one(f"SELECT {_COLUMNS} FROM backends WHERE id = :id", {"id": backend_id})
    if row is None:
        raise LookupError("a backend that was just written")
    return _from_row(row)


async def remove_others(tx: Tx, keep: Sequence[str], now: float) -> None:
    """Take backends off the list that the settings name no more."""
    await tx.run(
        f"""UPDATE backends SET removed_at = :now, state = 'offline'
            WHERE removed_at IS NULL AND NOT ({tx.dialect.among("id", "keep")})""",
        {"keep": dumps(list(keep)), "now": now},
    )


async def hold(tx: Tx, backend_id: str) -> None:
    """Lock a backend's row; its lock comes before those of lanes."""
    if not tx.dialect.one_writer:
        await tx.one(
            "SELECT id FROM backends WHERE id = :id" + tx.dialect.locking("backends"), {"id": backend_id}
        )


async def describe(
    tx: Tx,
    backend_id: str,
    *,
    state: BackendState,
    now: float,
    version: str | None = None,
    devices: Sequence[Mapping[str, Any]] | None = None,
    memory: Mapping[str, Any] | None = None,
    inventory_hash: str | None = None,
    breaker: Mapping[str, Any] | None = None,
) -> None:
    """Write what a worker knows of a backend now; what is None stays as it was."""
    await tx.run(
        """UPDATE backends SET state = :state, seen_at = CASE WHEN :seen = 1 THEN :now ELSE seen_at END,
             version = coalesce(:version, version), devices = coalesce(:devices, devices),
             memory = coalesce(:memory, memory), inventory_hash = coalesce(:inventory, inventory_hash),
             breaker = coalesce(:breaker, breaker)
           WHERE id = :id""",
        {
            "id": backend_id,
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


async def forget_residency(tx: Tx, backend_id: str) -> None:
    """A backend that restarted has nothing loaded."""
    await tx.run(
        "UPDATE backends SET residency = NULL, resident_model = NULL WHERE id = :id", {"id": backend_id}
    )
