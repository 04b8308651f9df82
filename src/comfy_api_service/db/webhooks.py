"""Webhooks of accounts, and the secrets that their deliveries are signed with: sealed before they come here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.webhook import Disabled, Webhook, WebhookEvent

OWNED: Final = "w.account_id = :account AND w.deleted_at IS NULL"
"""The owner's filter; every query on a webhook for a caller contains it."""
COLUMNS: Final = """w.id, w.account_id, w.url, w.events, w.created_at, w.updated_at, w.disabled_at, w.disabled_reason,
  w.failing_since, w.old_secret_until"""


def webhook_from(row: Row) -> Webhook:
    """From `COLUMNS`."""
    return Webhook(
        id=row["id"],
        account_id=row["account_id"],
        url=row["url"],
        events=tuple(WebhookEvent(one) for one in loads(row["events"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        disabled_at=row["disabled_at"],
        disabled_reason=None if row["disabled_reason"] is None else Disabled(row["disabled_reason"]),
        failing_since=row["failing_since"],
        old_secret_until=row["old_secret_until"],
    )


async def insert(tx: Tx, webhook: Webhook, secret: bytes) -> None:
    await tx.run(
        """INSERT INTO webhooks (id, account_id, url, events, secret, created_at, updated_at)
           VALUES (:id, :account, :url, :events, :secret, :now, :now)""",
        {
            "id": webhook.id,
            "account": webhook.account_id,
            "url": webhook.url,
            "events": dumps(webhook.events),
            "secret": secret,
            "now": webhook.created_at,
        },
    )


async def count(tx: Reader, account_id: str) -> int:
    row = await tx.one(f"SELECT count(*) AS n FROM webhooks w WHERE {OWNED}", {"account": account_id})
    return int(row["n"]) if row else 0


async def get(tx: Reader, account_id: str, webhook_id: str) -> Webhook | None:
    row = await tx.one(
        f"SELECT {COLUMNS} FROM webhooks w WHERE w.id = :id AND {OWNED}",
        {"id": webhook_id, "account": account_id},
    )
    return None if row is None else webhook_from(row)


async def hold(tx: Tx, account_id: str, webhook_id: str) -> Webhook | None:
    """Locked until the transaction ends."""
    row = await tx.one(
        f"SELECT {COLUMNS} FROM webhooks w WHERE w.id = :id AND {OWNED}{tx.dialect.locking('w')}",
        {"id": webhook_id, "account": account_id},
    )
    return None if row is None else webhook_from(row)


async def of_account(tx: Reader, account_id: str) -> list[Webhook]:
    """All of them, newest first: there are few."""
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM webhooks w WHERE {OWNED} ORDER BY w.id DESC", {"account": account_id}
    )
    return [webhook_from(row) for row in rows]


async def store(tx: Tx, webhook: Webhook) -> None:
    """What may change of a webhook that is held."""
    await tx.run(
        """UPDATE webhooks SET url = :url, events = :events, updated_at = :updated, disabled_at = :disabled,
             disabled_reason = :reason, failing_since = :failing WHERE id = :id AND account_id = :account""",
        {
            "id": webhook.id,
            "account": webhook.account_id,
            "url": webhook.url,
            "events": dumps(webhook.events),
            "updated": webhook.updated_at,
            "disabled": webhook.disabled_at,
            "reason": webhook.disabled_reason,
            "failing": webhook.failing_since,
        },
    )


async def rotate(tx: Tx, held: Webhook, secret: bytes, *, now: float, until: float) -> Webhook:
    """The present secret becomes the old one, good until then; one that was old before is good no more."""
    await tx.run(
        """UPDATE webhooks SET old_secret = secret, old_secret_until = :until, secret = :secret, updated_at = :now
           WHERE id = :id AND account_id = :account""",
        {"id": held.id, "account": held.account_id, "secret": secret, "now": now, "until": until},
    )
    return replace(held, old_secret_until=until, updated_at=now)


async def delete(tx: Tx, account_id: str, webhook_id: str, now: float) -> bool:
    """Nobody sees it from now on, and it is told nothing; upkeep takes it away with its deliveries."""
    return bool(
        await tx.run(
            """UPDATE webhooks SET deleted_at = :now, updated_at = :now, disabled_reason = 'owner',
                 disabled_at = coalesce(disabled_at, :now)
               WHERE id = :id AND account_id = :account AND deleted_at IS NULL""",
            {"id": webhook_id, "account": account_id, "now": now},
        )
    )


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """The secret for URLs of jobs. `shown_at` None: it was made for a delivery, and nobody knows it."""

    created_at: float
    shown_at: float | None
    old_secret_until: float | None


async def account_secret(tx: Reader, account_id: str) -> AccountSecret | None:
    row = await tx.one(
        "SELECT created_at, shown_at, old_secret_until FROM webhook_secrets WHERE account_id = :account",
        {"account": account_id},
    )
    return None if row is None else AccountSecret(row["created_at"], row["shown_at"], row["old_secret_until"])


async def ensure_account_secret(tx: Tx, account_id: str, secret: bytes, now: float) -> None:
    """Unless there is one."""
    await tx.run(
        """INSERT INTO webhook_secrets (account_id, secret, created_at) VALUES (:account, :secret, :now)
           ON CONFLICT (account_id) DO NOTHING""",
        {"account": account_id, "secret": secret, "now": now},
    )


async def rotate_account_secret(
    tx: Tx, account_id: str, secret: bytes, *, now: float, until: float
) -> AccountSecret:
    """The first one, or the next: the one before is good until then."""
    row = await tx.one(
        """INSERT INTO webhook_secrets (account_id, secret, created_at, shown_at)
           VALUES (:account, :secret, :now, :now)
           ON CONFLICT (account_id) DO UPDATE SET old_secret = webhook_secrets.secret, old_secret_until = :until,
             secret = excluded.secret, created_at = excluded.created_at, shown_at = excluded.shown_at
           RETURNING created_at, shown_at, old_secret_until""",
        {"account": account_id, "secret": secret, "now": now, "until": until},
    )
    if row is None:
        raise LookupError("a secret that was just written")
    return AccountSecret(row["created_at"], row["shown_at"], row["old_secret_until"])


async def notices(tx: Reader, account_id: str) -> Sequence[Webhook]:
    """Those that the service disabled."""
    rows = await tx.all(
        f"""SELECT {COLUMNS} FROM webhooks w WHERE {OWNED} AND w.disabled_at IS NOT NULL
            AND w.disabled_reason <> 'owner' ORDER BY w.id""",
        {"account": account_id},
    )
    return [webhook_from(row) for row in rows]
