"""Batches: requests that came in one call, and what became of those that made no job of their own."""

from typing import Any

from comfy_api_service.db.base import Reader, Tx, dumps, loads
from comfy_api_service.db.insertion import KeyReused
from comfy_api_service.db.keys import KEY_SECONDS
from comfy_api_service.domain.submission import NewBatch


async def take_key(tx: Tx, batch: NewBatch) -> str | KeyReused | None:
    """None: the Idempotency-Key, if there is one, is the batch's now. Else the id of the batch that it made before.

    Jobs have the same keys: one that made a job fits no batch, since their fingerprints differ.
    """
    if batch.idempotency_key is None:
        return None
    params = {"account": batch.account_id, "key": batch.idempotency_key}
    taken = await tx.run(
        """INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
           VALUES (:account, :key, :print, :batch, :now)
           ON CONFLICT (account_id, key) DO UPDATE SET
             fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = excluded.created_at
           WHERE idempotency_keys.created_at <= :since""",
        {
            **params,
            "print": batch.fingerprint,
            "batch": batch.id,
            "now": batch.created_at,
            "since": batch.created_at - KEY_SECONDS,
        },
    )
    if taken:
        return None
    row = await tx.one(
        "SELECT fingerprint, job_id FROM idempotency_keys WHERE account_id = :account AND key = :key", params
    )
    if row is None:
        raise LookupError("an Idempotency-Key that was just met")
    return str(row["job_id"]) if row["fingerprint"] == batch.fingerprint else KeyReused()


async def give_key_back(tx: Tx, batch: NewBatch) -> None:
    """Nothing came of the batch: the same call may be made again."""
    await tx.run(
        "DELETE FROM idempotency_keys WHERE account_id = :account AND key = :key",
        {"account": batch.account_id, "key": batch.idempotency_key},
    )


async def insert(tx: Tx, batch: NewBatch) -> None:
    await tx.run(
        """INSERT INTO batches (id, account_id, created_at, total, others)
           VALUES (:id, :account, :now, :total, '{}')""",
        {"id": batch.id, "account": batch.account_id, "now": batch.created_at, "total": batch.total},
    )


async def note_others(tx: Tx, batch: NewBatch, others: object) -> None:
    """`others`: what became of requests that made no job of their own, by index."""
    await tx.run(
        "UPDATE batches SET others = :others WHERE id = :id", {"id": batch.id, "others": dumps(others)}
    )


async def get(tx: Reader, account_id: str, batch_id: str) -> tuple[int, dict[str, Any], float] | None:
    """Total, what became of requests without a job of their own by index, and when it was made."""
    row = await tx.one(
        "SELECT total, others, created_at FROM batches WHERE id = :id AND account_id = :account",
        {"id": batch_id, "account": account_id},
    )
    return None if row is None else (row["total"], loads(row["others"]), row["created_at"])
