"""Idempotency keys: which job an earlier submission with the same key made.

Where several write at once, a key is locked before it is known whether its job is taken: of those who bring the
same one, the others wait for the first, then see what became of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from comfy_api_service.db.base import Reader, Tx, dumps
from comfy_api_service.domain.submission import NewJob

KEY_SECONDS: Final = 24 * 3600.0
"""How long an Idempotency-Key, and an identical request under `dedupe`, are remembered."""
KeyOf = tuple[str, str]
"""Account and key."""

_USED: Final = """SELECT account_id, key, fingerprint, job_id FROM idempotency_keys
WHERE {keys} AND {accounts} AND created_at > :since"""
_INSERT: Final = """INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
VALUES (:account, :key, :print, :job, :at)
ON CONFLICT (account_id, key) DO UPDATE SET
  fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = excluded.created_at"""
_LOCK: Final = """INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
SELECT account, key, print, job, :at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(account text, key text, print text, job text)
ORDER BY account COLLATE "C", key COLLATE "C"
ON CONFLICT (account_id, key) DO UPDATE SET
  fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = excluded.created_at
  WHERE idempotency_keys.created_at <= :since
RETURNING account_id, key"""


@dataclass(frozen=True, slots=True)
class Keys:
    """What is known of a group's keys before it is decided on."""

    used: dict[KeyOf, tuple[str, str]] = field(default_factory=dict)
    """Fingerprint and job of those that were used within `KEY_SECONDS`."""
    locked: dict[KeyOf, str] = field(default_factory=dict)
    """Others that are written already, so that nobody else uses them, with the job they were written for."""


async def look_up(tx: Tx, group: Sequence[NewJob]) -> Keys:
    first: dict[KeyOf, NewJob] = {}
    for job in group:
        if job.idempotency_key is not None:
            first.setdefault((job.account_id, job.idempotency_key), job)
    if not first:
        return Keys()
    now = group[0].queued_at
    if tx.dialect.one_writer:
        return Keys(await used(tx, list(first), now))
    rows = await tx.all(
        _LOCK,
        {"rows": dumps([_row(job) for job in first.values()]), "at": now, "since": now - KEY_SECONDS},
    )
    locked = {(row["account_id"], row["key"]) for row in rows}
    taken = sorted(first.keys() - locked)
    return Keys(await used(tx, taken, now) if taken else {}, {key: first[key].id for key in locked})


async def find(tx: Reader, account_id: str, key: str, now: float) -> tuple[str, str] | None:
    """Fingerprint and job (or batch) of a key that was used within `KEY_SECONDS`."""
    row = await tx.one(
        """SELECT fingerprint, job_id FROM idempotency_keys
           WHERE account_id = :account AND key = :key AND created_at > :since""",
        {"account": account_id, "key": key, "since": now - KEY_SECONDS},
    )
    return None if row is None else (row["fingerprint"], row["job_id"])


async def used(tx: Reader, keys: Sequence[KeyOf], now: float) -> dict[KeyOf, tuple[str, str]]:
    """Fingerprint and job of those that were used within `KEY_SECONDS`."""
    rows = await tx.all(
        _USED.format(
            keys=tx.dialect.among("key", "keys"), accounts=tx.dialect.among("account_id", "accounts")
        ),
        {
            "keys": dumps(sorted({key for _, key in keys})),
            "accounts": dumps(sorted({account for account, _ in keys})),
            "since": now - KEY_SECONDS,
        },
    )
    wanted = set(keys)
    found = {(row["account_id"], row["key"]): (row["fingerprint"], row["job_id"]) for row in rows}
    return {key: value for key, value in found.items() if key in wanted}


async def keep(tx: Tx, keys: Keys, fresh: Sequence[NewJob]) -> None:
    """Write the keys of the jobs that were taken; forget those that were locked for others."""
    taken = {(job.account_id, job.idempotency_key): job for job in fresh if job.idempotency_key is not None}
    await tx.many(
        _INSERT,
        [{**_row(job), "at": job.queued_at} for key, job in taken.items() if keys.locked.get(key) != job.id],
    )
    refused = keys.locked.keys() - taken.keys()
    if refused:
        await tx.run(
            f"""DELETE FROM idempotency_keys WHERE {tx.dialect.among("account_id", "accounts")}
                AND {tx.dialect.among("key", "keys")} AND {tx.dialect.among("job_id", "jobs")}""",
            {
                "accounts": dumps(sorted({account for account, _ in refused})),
                "keys": dumps(sorted({key for _, key in refused})),
                "jobs": dumps(sorted(keys.locked[one] for one in refused)),
            },
        )


def _row(job: NewJob) -> dict[str, object]:
    return {
        "account": job.account_id,
        "key": job.idempotency_key,
        "print": job.fingerprint,
        "job": job.id,
    }
