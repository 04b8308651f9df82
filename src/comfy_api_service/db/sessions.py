"""Sessions of people who logged in, their refresh tokens, each used once, and tickets."""

from dataclasses import dataclass
from typing import Final

from comfy_api_service.db.base import Reader, Tx
from comfy_api_service.domain.principal import Credential, Kind

USED_SECONDS: Final = 30 * 86_400.0
"""How long a refresh token that comes again is known to have been used; then it is none at all."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The token was good, and is used up."""

    session_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Reused:
    """The token was used before: somebody has a copy. The session is revoked."""

    session_id: str
    account_id: str


async def begin(
    tx: Tx, session_id: str, account_id: str, digest: str, *, now: float, expires_at: float
) -> None:
    """`digest`: of its first refresh token."""
    await tx.run(
        """INSERT INTO sessions (id, account_id, created_at, expires_at)
           VALUES (:id, :account, :now, :expires)""",
        {"id": session_id, "account": account_id, "now": now, "expires": expires_at},
    )
    await _add_token(tx, session_id, digest, now)


async def refresh(
    tx: Tx, digest: str, next_digest: str, *, now: float, expires_at: float
) -> Refreshed | Reused | None:
    """Use a refresh token up and put the next in its place; the session lasts on. None: no such open session."""
    row = await tx.one(
        """SELECT s.id, s.account_id, s.revoked_at, s.expires_at, t.used_at
           FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.digest = :digest"""
        + tx.dialect.locking("s", "t"),
        {"digest": digest},
    )
    if row is None:
        return None
    if row["used_at"] is not None:
        await revoke(tx, row["id"], now)
        return Reused(row["id"], row["account_id"])
    if row["revoked_at"] is not None or row["expires_at"] <= now:
        return None
    await tx.run(
        "UPDATE refresh_tokens SET used_at = :now WHERE digest = :digest", {"digest": digest, "now": now}
    )
    await _add_token(tx, row["id"], next_digest, now)
    await tx.run(
        "UPDATE sessions SET expires_at = :expires WHERE id = :id", {"id": row["id"], "expires": expires_at}
    )
    return Refreshed(row["id"], row["account_id"])


async def _add_token(tx: Tx, session_id: str, digest: str, now: float) -> None:
    await tx.run(
        "INSERT INTO refresh_tokens (digest, session_id, created_at) VALUES (:digest, :session, :now)",
        {"digest": digest, "session": session_id, "now": now},
    )


async def revoke(tx: Tx, session_id: str, now: float) -> bool:
    """False: absent, or revoked before."""
    return bool(
        await tx.run(
            "UPDATE sessions SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
            {"id": session_id, "now": now},
        )
    )


async def revoke_all(tx: Tx, account_id: str, now: float) -> int:
    return await tx.run(
        "UPDATE sessions SET revoked_at = :now WHERE account_id = :account AND revoked_at IS NULL",
        {"account": account_id, "now": now},
    )


async def add_ticket(tx: Tx, digest: str, credential: Credential, expires_at: float) -> None:
    await tx.run(
        """INSERT INTO tickets (digest, credential_kind, credential_id, expires_at)
           VALUES (:digest, :kind, :id, :expires)""",
        {"digest": digest, "kind": credential.kind, "id": credential.id, "expires": expires_at},
    )


async def has_ticket(tx: Reader, digest: str) -> bool:
    """Whether there is one to take, expired perhaps."""
    return (
        await tx.one("SELECT 1 AS there FROM tickets WHERE digest = :digest", {"digest": digest}) is not None
    )


async def take_ticket(tx: Tx, digest: str, now: float) -> Credential | None:
    """What the ticket stands for; it is gone then, whoever asks."""
    row = await tx.one(
        "DELETE FROM tickets WHERE digest = :digest RETURNING credential_kind, credential_id, expires_at",
        {"digest": digest},
    )
    if row is None or row["expires_at"] <= now:
        return None
    return Credential(Kind(row["credential_kind"]), row["credential_id"])


async def sweep(tx: Tx, now: float) -> None:
    """Forget tickets and sessions that have expired, sessions a day later, and tokens that were used long ago."""
    await tx.run("DELETE FROM tickets WHERE expires_at <= :now", {"now": now})
    await tx.run("DELETE FROM sessions WHERE expires_at <= :before", {"before": now - 86_400.0})
    await tx.run("DELETE FROM refresh_tokens WHERE used_at <= :before", {"before": now - USED_SECONDS})
