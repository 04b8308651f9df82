"""The audit log: who did what, to what, from where; written with the act, in its transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api_service.db.base import Reader, Tx, dumps, loads
from comfy_api_service.domain.principal import Actor


@dataclass(frozen=True, slots=True)
class Entry:
    """`at`: seconds since the epoch; `data`: no secret."""

    id: int
    at: float
    action: str
    actor_id: str | None
    target: str | None
    address: str | None
    request_id: str | None
    data: Mapping[str, Any]


async def note(
    tx: Tx, actor: Actor, action: str, *, now: float, target: str | None = None, **data: Any
) -> None:
    await tx.run(
        """INSERT INTO audit (at, action, actor_id, target, address, request_id, data)
           VALUES (:now, :action, :actor, :target, :address, :request, :data)""",
        {
            "now": now,
            "action": action,
            "actor": actor.account_id,
            "target": target,
            "address": actor.address,
            "request": actor.request_id,
            "data": dumps(data),
        },
    )


async def page(
    tx: Reader, *, before: int | None, limit: int, action: str | None = None, about: str | None = None
) -> list[Entry]:
    """Newest first; `about`: the actor or the target."""
    rows = await tx.all(
        """SELECT id, at, action, actor_id, target, address, request_id, data FROM audit
           WHERE id < :before AND (:action = '' OR action = :action)
             AND (:about = '' OR actor_id = :about OR target = :about) ORDER BY id DESC LIMIT :limit""",
        {
            "before": 2**62 if before is None else before,
            "action": action or "",
            "about": about or "",
            "limit": limit,
        },
    )
    return [
        Entry(
            row["id"],
            row["at"],
            row["action"],
            row["actor_id"],
            row["target"],
            row["address"],
            row["request_id"],
            loads(row["data"]),
        )
        for row in rows
    ]
