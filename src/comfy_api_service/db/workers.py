"""Workers and their leases' counters."""

from comfy_api_service.db.base import Tx


async def register(tx: Tx, worker_id: str, *, node_id: str, now: float, alone: bool) -> None:
    """Enter a worker. `alone`: a lock proves that no other lives, so their rows can go."""
    if alone:
        await tx.run("DELETE FROM workers")
        await tx.run("UPDATE backends SET worker_id = NULL")
    await tx.run(
        """INSERT INTO workers (id, node_id, counter, started_at)
           VALUES (:id, :node, 0, :now)""",
        {"id": worker_id, "node": node_id, "now": now},
    )


async def prove_life(tx: Tx, worker_id: str) -> bool:
    """Raise the lease's counter; False if the worker was replaced."""
    touched = await tx.run("UPDATE workers SET counter = counter + 1 WHERE id = :id", {"id": worker_id})
    return touched == 1
