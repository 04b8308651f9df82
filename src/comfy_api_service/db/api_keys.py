"""API keys: their digests, never themselves."""

from collections.abc import Mapping, Sequence

from comfy_api_service.db.base import Reader, Row, Tx
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.keys import Key

_COLUMNS = "k.id, k.account_id, k.name, k.scopes, k.created_at, k.expires_at, k.used_at, k.revoked_at"
OWNED = "k.account_id = :account"
"""The owner's filter; every query on a key for a caller contains it."""


def _from_row(row: Row) -> Key:
    return Key(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        scopes=scopes_from(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        revoked_at=row["revoked_at"],
    )


def scopes_from(text: str) -> frozenset[Scope]:
    return frozenset(map(Scope, text.split()))


async def insert(tx: Tx, key: Key, digest: str) -> None:
    await tx.run(
        """INSERT INTO api_keys (id, account_id, name, digest, scopes, created_at, expires_at)
           VALUES (:id, :account, :name, :digest, :scopes, :now, :expires)""",
        {
            "id": key.id,
            "account": key.account_id,
            "name": key.name,
            "digest": digest,
            "scopes": " ".join(sorted(key.scopes)),
            "now": key.created_at,
            "expires": key.expires_at,
        },
    )


async def of_account(tx: Reader, account_id: str) -> list[Key]:
    """Newest first, those that were revoked too."""
    rows = await tx.all(
        f"SELECT {_COLUMNS} FROM api_keys k WHERE {OWNED} ORDER BY k.created_at DESC, k.id",
        {"account": account_id},
    )
    return [_from_row(row) for row in rows]


async def count_open(tx: Reader, account_id: str, now: float) -> int:
    """Keys that can still be used."""
    row = await tx.one(
        f"""SELECT count(*) AS n FROM api_keys k WHERE {OWNED} AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > :now)""",
        {"account": account_id, "now": now},
    )
    return int(row["n"]) if row else 0


async def every(tx: Reader, *, after: str | None, limit: int, account_id: str | None = None) -> list[Key]:
    """All accounts' keys, or those of one, for operators, in the order of their ids."""
    owned = "" if account_id is None else f" AND {OWNED}"
    rows = await tx.all(
        f"SELECT {_COLUMNS} FROM api_keys k WHERE k.id > :after{owned} ORDER BY k.id LIMIT :limit",
        {
            "after": after or "",
            "limit": limit,
            **({} if account_id is None else {"account": account_id}),
        },
    )
    return [_from_row(row) for row in rows]


async def owner_of(tx: Reader, key_id: str) -> str | None:
    """Whose key it is, for operators."""
    row = await tx.one("SELECT account_id FROM api_keys WHERE id = :id", {"id": key_id})
    return None if row is None else str(row["account_id"])


async def revoke(tx: Tx, account_id: str, key_id: str, now: float) -> bool:
    """False: absent, somebody else's, or revoked before."""
    return bool(
        await tx.run(
            """UPDATE api_keys SET revoked_at = :now
               WHERE id = :id AND account_id = :account AND revoked_at IS NULL""",
            {"id": key_id, "account": account_id, "now": now},
        )
    )


async def revoke_all(tx: Tx, account_id: str, now: float) -> int:
    """How many of the account's keys were not revoked before."""
    return await tx.run(
        "UPDATE api_keys SET revoked_at = :now WHERE account_id = :account AND revoked_at IS NULL",
        {"account": account_id, "now": now},
    )


async def note_use(tx: Tx, used: Mapping[str, float]) -> None:
    """When keys were last used; later times stand."""
    rows: Sequence[Mapping[str, object]] = [{"id": key_id, "at": at} for key_id, at in sorted(used.items())]
    await tx.many(
        """UPDATE api_keys SET used_at = CASE WHEN used_at IS NULL OR used_at < :at THEN :at ELSE used_at END
           WHERE id = :id""",
        rows,
    )
