"""What deliverers ask of the database: outbox entries become deliveries, receivers are held by one deliverer each.

A receiver's lane is what is held: for a few seconds, renewed while its holder lives. So no two deliverers ask one
receiver at once, a dead one's are taken over, and a receiver with a million deliveries costs others one row.
Everybody locks the lane's row first, whoever adds a delivery and whoever looks for what waits: what is added is seen,
or added after.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from comfy_api_service.db import accounts, deliveries, jobs, webhooks
from comfy_api_service.db.base import Part, Reader, Row, Tx, dumps
from comfy_api_service.db.deliveries import delivery_from, log_of
from comfy_api_service.domain.ids import new_delivery_id
from comfy_api_service.domain.job import Job
from comfy_api_service.domain.redelivery import DELIVERY_SECONDS, DISABLE_SECONDS, FAILING
from comfy_api_service.domain.users import User
from comfy_api_service.domain.webhook import (
    Attempt,
    Delivery,
    DeliveryState,
    Disabled,
    Trouble,
    Webhook,
    WebhookEvent,
    told_of,
)

HOLD_SECONDS: Final = 6.0
"""A lane whose holder has not renewed for so long is anybody's."""
LOG_MOST: Final = 20
"""Attempts of a delivery that are kept."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to do, at a glance. `due_at`: when a lane is due next, or has been since."""

    outbox: bool
    due_at: float | None
    workers: int
    """That live; each of them asks."""


async def look(tx: Reader) -> Sight:
    row = await tx.one(
        """SELECT EXISTS (SELECT 1 FROM outbox WHERE handled_at IS NULL) AS outbox,
             (SELECT min(due_at) FROM webhook_lanes WHERE due_at IS NOT NULL AND failures < 3) AS due_at,
             (SELECT min(due_at) FROM webhook_lanes WHERE due_at IS NOT NULL AND failures >= 3) AS failing_due_at,
             (SELECT count(*) FROM workers WHERE counter >= 0) AS workers"""
    )
    if row is None:
        return Sight(outbox=False, due_at=None, workers=0)
    due = [at for at in (row["due_at"], row["failing_due_at"]) if at is not None]
    return Sight(bool(row["outbox"]), min(due, default=None), int(row["workers"]))


async def fan_out(tx: Tx, *, now: float, limit: int) -> tuple[int, frozenset[str]]:
    """Turn outbox entries into deliveries; how many entries, and the receivers that something waits for now."""
    rows = await tx.all(
        """SELECT o.id, o.job_id, o.account_id, o.seq, o.type, o.at, j.webhook_url, e.status FROM outbox o
           LEFT JOIN jobs j ON j.id = o.job_id LEFT JOIN events e ON e.job_id = o.job_id AND e.seq = o.seq
           WHERE o.handled_at IS NULL ORDER BY o.id LIMIT :limit"""
        + tx.dialect.locking("o", skipping=True),
        {"limit": limit},
    )
    if not rows:
        return 0, frozenset()
    made = _made(rows, await _asking(tx, {row["account_id"] for row in rows}), now)
    lanes = {
        one.receiver: {
            "receiver": one.receiver,
            "account": one.account_id,
            "webhook": one.webhook_id,
            "now": now,
        }
        for one in made
    }
    await tx.many(deliveries.LANE, [lanes[receiver] for receiver in sorted(lanes)])
    await tx.many(deliveries.INSERT, [deliveries.row_of(one) for one in made])
    await tx.many(
        "UPDATE outbox SET handled_at = :now WHERE id = :id", [{"id": row["id"], "now": now} for row in rows]
    )
    return len(rows), frozenset(lanes)


async def _asking(tx: Tx, account_ids: Collection[str]) -> Mapping[str, Sequence[Webhook]]:
    """The webhooks of accounts that are told anything, by account."""
    rows = await tx.all(
        f"""SELECT {webhooks.COLUMNS} FROM webhooks w
            WHERE {tx.dialect.among("w.account_id", "accounts")} AND w.disabled_at IS NULL AND w.deleted_at IS NULL
            ORDER BY w.id""",
        {"accounts": dumps(sorted(account_ids))},
    )
    found: dict[str, list[Webhook]] = {}
    for row in rows:
        webhook = webhooks.webhook_from(row)
        found.setdefault(webhook.account_id, []).append(webhook)
    return found


def _made(rows: Sequence[Row], asking: Mapping[str, Sequence[Webhook]], now: float) -> list[Delivery]:
    made = []
    for row in rows:
        event = told_of(row["type"], row["status"])
        if event is None:
            continue
        made += [
            _delivery(row, event, now, webhook_id=webhook.id)
            for webhook in asking.get(row["account_id"], ())
            if event in webhook.events and webhook.created_at <= row["at"]
        ]
        if row["webhook_url"] is not None:
            made.append(_delivery(row, event, now, url=row["webhook_url"]))
    return made


def _delivery(
    row: Row, event: WebhookEvent, now: float, *, webhook_id: str | None = None, url: str | None = None
) -> Delivery:
    account_id = row["account_id"]
    return Delivery(
        id=new_delivery_id(),
        account_id=account_id,
        webhook_id=webhook_id,
        receiver=webhook_id or receiver_of(account_id, url or ""),
        url=url,
        job_id=row["job_id"],
        type=event,
        seq=row["seq"],
        event_at=row["at"],
        state=DeliveryState.WAITING,
        attempts=0,
        next_at=now,
        expires_at=now + DELIVERY_SECONDS,
        created_at=now,
    )


def receiver_of(account_id: str, url: str) -> str:
    """The lane of URLs that an account's jobs name: one for each origin, whatever path follows."""
    origin = urlsplit(url)[:2]
    return f"url_{hashlib.sha256(repr((account_id, origin)).encode()).hexdigest()[:32]}"


# --- lanes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lane:
    receiver: str
    account_id: str
    webhook_id: str | None
    failures: int
    paused_until: float


@dataclass(frozen=True, slots=True)
class Room:
    """What a process can take on, by what it works already."""

    most: int
    most_failing: int
    """Of receivers that keep failing."""
    each: int
    """Of an account that it works nothing for; `left`: of those that it does work for."""
    left: Mapping[str, int]
    worked: Collection[str]
    """Receivers that it must not take a second time."""


async def claim(tx: Tx, holder: str, room: Room, now: float) -> list[Lane]:
    """Hold lanes in which something is due, those that have waited longest first. Of one account and of receivers that
    keep failing no more than there is room for: what cannot be served stays as it is, and takes nobody else's place.
    """
    left = dict(room.left)
    found = await _due(tx, "failures < 3", room.most, left, room, now)
    most_failing = min(room.most_failing, room.most - len(found))
    found += await _due(tx, "failures >= 3", most_failing, left, room, now)
    await tx.many(
        "UPDATE webhook_lanes SET holder = :holder, due_at = :until WHERE receiver = :receiver",
        [{"holder": holder, "until": now + HOLD_SECONDS, "receiver": lane.receiver} for lane in found],
    )
    return found


async def _due(tx: Tx, which: str, most: int, left: dict[str, int], room: Room, now: float) -> list[Lane]:
    """`left` is brought up to date. Looks again, past those accounts, when some had more than is left for them."""
    found: list[Lane] = []
    while len(found) < most:
        full = sorted(account for account, count in left.items() if count == 0)
        limit = most - len(found)
        rows = await tx.all(
            f"""SELECT receiver, account_id, webhook_id, failures, paused_until FROM webhook_lanes
                WHERE due_at IS NOT NULL AND {which} AND due_at <= :now
                AND NOT {tx.dialect.among("account_id", "full")} AND NOT {tx.dialect.among("receiver", "worked")}
                ORDER BY due_at LIMIT :limit"""
            + tx.dialect.locking("webhook_lanes", skipping=True),
            {
                "now": now,
                "limit": limit,
                "full": dumps(full),
                "worked": dumps(sorted({*room.worked, *(lane.receiver for lane in found)})),
            },
        )
        refused = False
        for row in rows:
            account_id = row["account_id"]
            if left.setdefault(account_id, room.each) == 0:
                refused = True
                continue
            left[account_id] -= 1
            found.append(
                Lane(row["receiver"], account_id, row["webhook_id"], row["failures"], row["paused_until"])
            )
        if len(rows) < limit or not refused:
            break
    return found


_IN_ORDER: Final = "SELECT receiver FROM webhook_lanes WHERE {which} ORDER BY receiver"
"""Whoever locks several lanes and waits for them does so in this order."""


async def renew(tx: Tx, holder: str, worked: Collection[str], now: float) -> frozenset[str]:
    """Those of these lanes that are still held. What the holder has beside them runs out."""
    which = f"holder = :holder AND {tx.dialect.among('receiver', 'worked')}"
    rows = await tx.all(
        f"""UPDATE webhook_lanes SET due_at = :until WHERE holder = :holder AND receiver IN (
              {_IN_ORDER.format(which=which)}{tx.dialect.locking("webhook_lanes")}) RETURNING receiver""",
        {"holder": holder, "worked": dumps(sorted(worked)), "until": now + HOLD_SECONDS},
    )
    return frozenset(row["receiver"] for row in rows)


async def free(tx: Tx, holder: str, now: float) -> None:
    """Let go of everything, as it is: others go on at once."""
    await tx.run(
        f"""UPDATE webhook_lanes SET holder = NULL, due_at = :now WHERE holder = :holder AND receiver IN (
              {_IN_ORDER.format(which="holder = :holder")}{tx.dialect.locking("webhook_lanes")})""",
        {"holder": holder, "now": now},
    )


async def free_all(tx: Tx, now: float) -> None:
    """Whoever held lanes is dead: for a process that knows it is the only one."""
    await tx.run(
        f"""UPDATE webhook_lanes SET holder = NULL, due_at = :now WHERE holder IS NOT NULL AND receiver IN (
              {_IN_ORDER.format(which="holder IS NOT NULL")}{tx.dialect.locking("webhook_lanes")})""",
        {"now": now},
    )


# --- one lane ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to: `next_at` None ends the delivery."""

    delivery: Delivery
    attempt: Attempt
    state: DeliveryState
    next_at: float | None = None
    counted: bool = True
    """Whether the receiver had its chance."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a holder knows of its lane."""

    failures: int
    paused_until: float
    outcomes: Sequence[Outcome] = ()
    gone: bool = False
    """The receiver answered 410: a webhook is disabled."""


@dataclass(frozen=True, slots=True)
class Next:
    """What is to be sent, with all that it needs. `ended`: the lane is held no more."""

    deliveries: Sequence[Delivery] = ()
    jobs: Mapping[str, Job] | None = None
    url: str | None = None
    secrets: tuple[bytes, ...] = ()
    """Sealed, the present one first; none yet for URLs of jobs of an account that has none."""
    owner: User | None = None
    ended: bool = False
    due_at: float | None = None
    """When a lane that was let go is due again."""
    disabled: Disabled | None = None
    """The webhook is told nothing; `disabled_now`: since this step, by what came of attempts."""
    disabled_now: bool = False
    given_up: int = 0
    """Deliveries that were ended for that."""
    version: float | None = None
    """When the webhook was last changed: what was read before that is not to be sent as it is."""


LOST: Final = Next(ended=True)


async def step(
    tx: Tx,
    lane: Lane,
    holder: str,
    report: Report,
    *,
    open_ids: Collection[str],
    room: int,
    now: float,
) -> Next:
    """Note what came of attempts, and take what is due; with nothing open and nothing due the lane is let go.

    `LOST` if somebody else has the lane: then nothing was noted.
    """
    held = await tx.one(
        """SELECT l.failures, w.updated_at AS version FROM webhook_lanes l LEFT JOIN webhooks w ON w.id = l.webhook_id
           WHERE l.receiver = :receiver AND l.holder = :holder"""
        + tx.dialect.locking("l"),
        {"receiver": lane.receiver, "holder": holder},
    )
    if held is None:
        return LOST
    await tx.together(*_noted(lane, report.outcomes))
    if held["failures"] != report.failures or report.paused_until > now:
        await tx.run(
            "UPDATE webhook_lanes SET failures = :failures, paused_until = :paused WHERE receiver = :receiver",
            {"receiver": lane.receiver, "failures": report.failures, "paused": report.paused_until},
        )
    judged = Next(version=held["version"])
    if lane.webhook_id is not None:
        judged = await _judge(tx, lane, report, judged, now)
    due: Sequence[Delivery] = ()
    if room > 0 and not judged.disabled_now and report.paused_until <= now:
        due = await _waiting(tx, lane, open_ids, room, now)
    if not due:
        if open_ids:
            return judged
        return replace(judged, ended=True, due_at=await _let_go(tx, lane, report, now))
    return replace(await _with_all(tx, lane, due, now), version=judged.version)


def _noted(lane: Lane, outcomes: Sequence[Outcome]) -> list[Part]:
    """What came of attempts; a success ends the time that a webhook has failed for.

    A delivery that was asked to be sent again meanwhile, and so ends later than was known, still waits for that.
    """
    parts: list[Part] = [
        (
            """UPDATE webhook_deliveries SET
                 attempts = :attempts, last_status = :status, last_error = :error, log = :log,
                 state = CASE WHEN expires_at = :expires THEN :state ELSE state END,
                 next_at = CASE WHEN expires_at = :expires THEN :next ELSE next_at END,
                 ended_at = CASE WHEN expires_at = :expires THEN :ended ELSE ended_at END
               WHERE id = :id AND state = 'waiting'""",
            [
                {
                    "id": one.delivery.id,
                    "expires": one.delivery.expires_at,
                    "state": one.state,
                    "attempts": one.delivery.attempts + int(one.counted),
                    "next": one.delivery.next_at if one.next_at is None else one.next_at,
                    "ended": None if one.next_at is not None else one.attempt.at,
                    "status": one.attempt.status,
                    "error": one.attempt.error,
                    "log": log_of((*one.delivery.log, one.attempt)[-LOG_MOST:]),
                }
                for one in outcomes
            ],
        )
    ]
    if lane.webhook_id is not None and _any_delivered(outcomes):
        parts.append(
            (
                """UPDATE webhooks SET failing_since = NULL
                   WHERE id = :id AND account_id = :account AND failing_since IS NOT NULL""",
                {"id": lane.webhook_id, "account": lane.account_id},
            )
        )
    return parts


def _any_delivered(outcomes: Sequence[Outcome]) -> bool:
    return any(one.state is DeliveryState.DELIVERED for one in outcomes)


async def _judge(tx: Tx, lane: Lane, report: Report, found: Next, now: float) -> Next:
    """Whether the webhook has failed for too long; by what came of its attempts."""
    told = [one for one in report.outcomes if one.counted]
    if not report.gone and (not told or _any_delivered(told)):
        return found
    params = {"id": lane.webhook_id, "account": lane.account_id, "now": now}
    await tx.run(
        """UPDATE webhooks SET failing_since = :now
           WHERE id = :id AND account_id = :account AND failing_since IS NULL""",
        params,
    )
    reason = Disabled.GONE if report.gone else Disabled.FAILING
    row = await tx.one(
        """UPDATE webhooks SET disabled_at = :now, disabled_reason = :reason, updated_at = :now
           WHERE id = :id AND account_id = :account AND disabled_at IS NULL AND failing_since <= :since
           RETURNING id""",
        {**params, "reason": reason, "since": now if report.gone else now - DISABLE_SECONDS},
    )
    if row is None:
        return found
    given_up = await deliveries.give_up(tx, lane.account_id, str(lane.webhook_id), Trouble.DISABLED, now)
    return Next(disabled=reason, disabled_now=True, given_up=given_up, version=now)


async def _waiting(
    tx: Tx, lane: Lane, open_ids: Collection[str], room: int, now: float
) -> Sequence[Delivery]:
    rows = await tx.all(
        f"""SELECT {deliveries.COLUMNS}, j.trace_context
            FROM webhook_deliveries d LEFT JOIN jobs j ON j.id = d.job_id
            WHERE d.receiver = :receiver AND d.state = 'waiting' AND d.next_at <= :now
            AND NOT {tx.dialect.among("d.id", "open")} ORDER BY d.next_at LIMIT :room""",
        {"receiver": lane.receiver, "now": now, "open": dumps(sorted(open_ids)), "room": room},
    )
    return [replace(delivery_from(row), trace_context=row["trace_context"]) for row in rows]


async def _let_go(tx: Tx, lane: Lane, report: Report, now: float) -> float | None:
    """The lane is due again when its next delivery is, and no sooner than its receiver may be asked."""
    row = await tx.one(
        """UPDATE webhook_lanes SET holder = NULL, used_at = :now, due_at = (
             SELECT CASE WHEN min(d.next_at) < :paused THEN :paused ELSE min(d.next_at) END
             FROM webhook_deliveries d WHERE d.receiver = :receiver AND d.state = 'waiting')
           WHERE receiver = :receiver RETURNING due_at""",
        {"receiver": lane.receiver, "paused": report.paused_until, "now": now},
    )
    return None if row is None else row["due_at"]


async def _with_all(tx: Tx, lane: Lane, due: Sequence[Delivery], now: float) -> Next:
    wanted = sorted({one.job_id for one in due if one.job_id is not None})
    found = await jobs.many(tx, lane.account_id, wanted) if wanted else {}
    table = "webhooks" if lane.webhook_id is not None else "webhook_secrets"
    which = "r.id = :webhook" if lane.webhook_id is not None else "CAST(:webhook AS text) IS NULL"
    more = ", r.url AS receiver_url, r.disabled_reason" if lane.webhook_id is not None else ""
    row = await tx.one(
        f"""SELECT {accounts.COLUMNS}, r.secret, r.old_secret,
              CASE WHEN r.old_secret_until > :now THEN 1 ELSE 0 END AS overlaps{more}
            FROM accounts a LEFT JOIN {table} r ON r.account_id = a.id AND {which} WHERE a.id = :account""",
        {"webhook": lane.webhook_id, "account": lane.account_id, "now": now},
    )
    if row is None or row["secret"] is None:
        return Next(due, found)
    sealed = [row["secret"], *([row["old_secret"]] if row["overlaps"] else [])]
    reason = None
    if lane.webhook_id is not None and row["disabled_reason"] is not None:
        reason = Disabled(row["disabled_reason"])
    return Next(
        due,
        found,
        row["receiver_url"] if lane.webhook_id is not None else None,
        tuple(bytes(one) for one in sealed),
        accounts.user_from(row),
        disabled=reason,
    )


# --- upkeep ------------------------------------------------------------------------------------------------


async def expire(tx: Tx, now: float, *, limit: int) -> int:
    """Deliveries that were tried for long enough."""
    return await tx.run(
        """UPDATE webhook_deliveries SET state = 'failed', ended_at = :now, last_error = 'expired'
           WHERE id IN (SELECT id FROM webhook_deliveries WHERE state = 'waiting' AND expires_at <= :now
             LIMIT :limit) AND state = 'waiting'""",
        {"now": now, "limit": limit},
    )


async def give_up_disabled(tx: Tx, now: float, *, limit: int) -> int:
    """What still waits for webhooks that were disabled lately."""
    return await tx.run(
        """UPDATE webhook_deliveries SET state = 'failed', ended_at = :now, last_error = 'webhook_disabled'
           WHERE id IN (SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.receiver = w.id
             WHERE w.disabled_at >= :since AND d.state = 'waiting' LIMIT :limit) AND state = 'waiting'""",
        {"now": now, "since": now - DELIVERY_SECONDS, "limit": limit},
    )


async def forget_deleted(tx: Tx, *, limit: int) -> int:
    """Deliveries of webhooks that were deleted; and those webhooks, once nothing of them is left."""
    gone = await tx.run(
        """DELETE FROM webhook_deliveries WHERE id IN (
             SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id
             WHERE w.disabled_at IS NOT NULL AND w.deleted_at IS NOT NULL LIMIT :limit)""",
        {"limit": limit},
    )
    if gone < limit:
        bare = """SELECT w.id FROM webhooks w WHERE w.disabled_at IS NOT NULL AND w.deleted_at IS NOT NULL
                  AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = w.id)"""
        await tx.run(f"DELETE FROM webhook_lanes WHERE webhook_id IN ({bare})")
        await tx.run(f"DELETE FROM webhooks WHERE id IN ({bare})")
    return gone


async def forget(tx: Tx, *, before: float, limit: int) -> int:
    """Old deliveries, and lanes that nothing came through since."""
    gone = await tx.run(
        """DELETE FROM webhook_deliveries WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE created_at < :before AND state <> 'waiting' LIMIT :limit)""",
        {"before": before, "limit": limit},
    )
    await tx.run(
        f"""DELETE FROM webhook_lanes WHERE used_at < :before AND due_at IS NULL AND receiver IN (
              SELECT l.receiver FROM webhook_lanes l WHERE l.used_at < :before AND l.due_at IS NULL AND NOT EXISTS (
                SELECT 1 FROM webhook_deliveries d WHERE d.receiver = l.receiver)
              ORDER BY l.receiver{tx.dialect.locking("l", skipping=True)})""",
        {"before": before},
    )
    return gone


@dataclass(frozen=True, slots=True)
class Backlog:
    """`waiting` is counted up to a bound; `oldest_at`: when the event of the one that is due longest happened."""

    waiting: int
    oldest_at: float | None


COUNTED_MOST: Final = 100_000


async def backlog(tx: Reader, now: float) -> Backlog:
    row = await tx.one(
        """SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM webhook_deliveries WHERE state = 'waiting'
               LIMIT :most) AS w) AS waiting,
             (SELECT min(due_at) FROM webhook_lanes WHERE due_at IS NOT NULL AND failures < 3
               AND due_at <= :now) AS oldest""",
        {"most": COUNTED_MOST, "now": now},
    )
    return Backlog(0, None) if row is None else Backlog(int(row["waiting"]), row["oldest"])


assert FAILING == 3  # noqa: S101 - as in the conditions of the indexes
