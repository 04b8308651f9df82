"""What stands behind the credentials that callers show: one query for as many as are asked for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from comfy_api_service.db import accounts
from comfy_api_service.db.api_keys import scopes_from
from comfy_api_service.db.base import Reader, Row, dumps
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.principal import ALL_SCOPES, Credential, Kind
from comfy_api_service.domain.users import User


@dataclass(frozen=True, slots=True)
class Known:
    """A credential that can be used until `expires_at`; `digest` is a key's."""

    user: User
    scopes: frozenset[Scope]
    expires_at: float | None
    digest: str | None = None


_KEYS = f"""SELECT k.id AS credential, k.digest, k.scopes, k.expires_at, {accounts.COLUMNS}
FROM api_keys k JOIN accounts a ON a.id = k.account_id
WHERE k.revoked_at IS NULL AND a.disabled_at IS NULL AND """
_SESSIONS = f"""SELECT s.id AS credential, s.expires_at, {accounts.COLUMNS}
FROM sessions s JOIN accounts a ON a.id = s.account_id
WHERE s.revoked_at IS NULL AND a.disabled_at IS NULL AND """


async def load(tx: Reader, wanted: Collection[Credential]) -> Mapping[Credential, Known]:
    """Those that are there, not revoked, and whose account may call. Expiry is the reader's to look at."""
    found: dict[Credential, Known] = {}
    for kind, query, column in ((Kind.KEY, _KEYS, "k.id"), (Kind.SESSION, _SESSIONS, "s.id")):
        ids = sorted(one.id for one in wanted if one.kind is kind)
        if ids:
            rows = await tx.all(query + tx.dialect.among(column, "ids"), {"ids": dumps(ids)})
            found |= {Credential(kind, row["credential"]): _known(kind, row) for row in rows}
    return found


def _known(kind: Kind, row: Row) -> Known:
    of_key = kind is Kind.KEY
    return Known(
        accounts.user_from(row),
        scopes_from(row["scopes"]) if of_key else ALL_SCOPES,
        row["expires_at"],
        row["digest"] if of_key else None,
    )
