"""Deliveries as their owner sees them: the log, a test, and one that is sent again."""

from typing import Any, Final

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.webhook import Attempt, Delivery, DeliveryState, Trouble, WebhookEvent

OWNED: Final = "d.account_id = :account"
"""The owner's filter; every query on a delivery for a caller contains it."""
COLUMNS: Final = """d.id, d.account_id, d.webhook_id, d.receiver, d.url, d.job_id, d.type, d.seq, d.event_at, d.state,
  d.attempts, d.next_at, d.expires_at, d.created_at, d.ended_at, d.last_status, d.last_error, d.log,
  d.replayed_attempts"""
AT_ONCE: Final = 500
"""Rows that one transaction gives up or deletes: while it does, nobody else writes on SQLite."""
_KEPT: Final = """(d.webhook_id IS NULL OR EXISTS (SELECT 1 FROM webhooks w
  WHERE w.id = d.webhook_id AND w.account_id = :account AND w.deleted_at IS NULL))"""
"""Not of a webhook that was deleted: its deliveries go by and by."""
_OF_STATE: Final = {
    DeliveryState.WAITING: "d.state = 'waiting'",
    DeliveryState.DELIVERED: "d.state = 'delivered'",
    DeliveryState.FAILED: "d.state = 'failed'",
}
INSERT: Final = """INSERT INTO webhook_deliveries (id, account_id, webhook_id, receiver, url, job_id, type, seq,
  event_at, state, next_at, expires_at, created_at, log)
VALUES (:id, :account, :webhook, :receiver, :url, :job, :type, :seq,
  :event_at, 'waiting', :now, :expires, :now, '[]')"""
LANE: Final = """INSERT INTO webhook_lanes (receiver, account_id, webhook_id, due_at, used_at)
VALUES (:receiver, :account, :webhook, :now, :now)
ON CONFLICT (receiver) DO UPDATE SET used_at = excluded.used_at, due_at = CASE
  WHEN webhook_lanes.holder IS NOT NULL AND webhook_lanes.due_at IS NOT NULL THEN webhook_lanes.due_at
  WHEN webhook_lanes.due_at IS NOT NULL AND webhook_lanes.due_at < excluded.due_at THEN webhook_lanes.due_at
  WHEN webhook_lanes.paused_until > excluded.due_at THEN webhook_lanes.paused_until
  ELSE excluded.due_at END"""
"""Something waits for a receiver. One that is held stays as it is: its holder looks before it lets go."""


def delivery_from(row: Row) -> Delivery:
    """From `COLUMNS`."""
    return Delivery(
        id=row["id"],
        account_id=row["account_id"],
        webhook_id=row["webhook_id"],
        receiver=row["receiver"],
        url=row["url"],
        job_id=row["job_id"],
        type=WebhookEvent(row["type"]),
        seq=row["seq"],
        event_at=row["event_at"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        next_at=row["next_at"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        last_status=row["last_status"],
        last_error=None if row["last_error"] is None else Trouble(row["last_error"]),
        log=tuple(_attempt(one) for one in loads(row["log"])),
        replayed_attempts=row["replayed_attempts"],
    )


def _attempt(document: Any) -> Attempt:
    at, seconds, status, error = document
    return Attempt(at, seconds, status, None if error is None else Trouble(error))


def log_of(attempts: tuple[Attempt, ...]) -> str:
    return dumps([(one.at, one.seconds, one.status, one.error) for one in attempts])


async def insert(tx: Tx, delivery: Delivery) -> None:
    """One that is to be sent now."""
    await due(tx, delivery, delivery.created_at)
    await tx.run(INSERT, row_of(delivery))


def row_of(one: Delivery) -> dict[str, Any]:
    """For `INSERT`."""
    return {
        "id": one.id,
        "account": one.account_id,
        "webhook": one.webhook_id,
        "receiver": one.receiver,
        "url": one.url,
        "job": one.job_id,
        "type": one.type,
        "seq": one.seq,
        "event_at": one.event_at,
        "now": one.created_at,
        "expires": one.expires_at,
    }


async def due(tx: Tx, delivery: Delivery, now: float) -> None:
    await tx.run(
        LANE,
        {
            "receiver": delivery.receiver,
            "account": delivery.account_id,
            "webhook": delivery.webhook_id,
            "now": now,
        },
    )


async def page(
    tx: Reader,
    account_id: str,
    *,
    before: str | None,
    limit: int,
    webhook_id: str | None = None,
    state: DeliveryState | None = None,
) -> list[Delivery]:
    """Newest first; `before` is the last id of the page before."""
    where = [OWNED]
    params: dict[str, Any] = {"account": account_id, "limit": limit}
    if webhook_id is not None:
        where.append("d.webhook_id = :webhook")
        params["webhook"] = webhook_id
    else:
        where.append(_KEPT)
    if state is not None:
        where.append(_OF_STATE[state])
    if before is not None:
        where.append("d.id < :before")
        params["before"] = before
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM webhook_deliveries d WHERE {' AND '.join(where)} ORDER BY d.id DESC LIMIT :limit",
        params,
    )
    return [delivery_from(row) for row in rows]


async def get(tx: Reader, account_id: str, delivery_id: str) -> Delivery | None:
    row = await tx.one(
        f"SELECT {COLUMNS} FROM webhook_deliveries d WHERE d.id = :id AND {OWNED} AND {_KEPT}",
        {"id": delivery_id, "account": account_id},
    )
    return None if row is None else delivery_from(row)


async def again(tx: Tx, known: Delivery, *, now: float, expires_at: float) -> None:
    """A delivery is to be sent now, whatever became of it before."""
    await due(tx, known, now)
    await tx.run(
        """UPDATE webhook_deliveries SET state = 'waiting', next_at = :now, expires_at = :expires, ended_at = NULL,
             replayed_attempts = attempts WHERE id = :id AND account_id = :account""",
        {"id": known.id, "account": known.account_id, "now": now, "expires": expires_at},
    )


async def hold_lane(tx: Tx, account_id: str, receiver: str) -> None:
    """Nobody adds a delivery or notes what came of one until the transaction ends."""
    await tx.one(
        "SELECT receiver FROM webhook_lanes WHERE receiver = :receiver AND account_id = :account"
        + tx.dialect.locking("webhook_lanes"),
        {"receiver": receiver, "account": account_id},
    )


async def give_up(
    tx: Tx, account_id: str, webhook_id: str, error: Trouble, now: float, *, limit: int = AT_ONCE
) -> int:
    """What waits for a webhook that is told nothing any more: so many, the rest is for upkeep."""
    return await tx.run(
        """UPDATE webhook_deliveries SET state = 'failed', ended_at = :now, last_error = :error
           WHERE id IN (SELECT d.id FROM webhook_deliveries d WHERE d.receiver = :webhook AND d.state = 'waiting'
             LIMIT :limit) AND account_id = :account AND webhook_id = :webhook AND state = 'waiting'""",
        {"webhook": webhook_id, "account": account_id, "error": error, "now": now, "limit": limit},
    )
