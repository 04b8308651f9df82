"""Webhooks, their deliveries, and what receivers get, as plain JSON values."""

from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.api import cursors, shapes
from comfy_api_service.db.webhooks import AccountSecret
from comfy_api_service.domain.errors import TABLE
from comfy_api_service.domain.job import Status
from comfy_api_service.domain.times import iso, iso_or_none
from comfy_api_service.domain.webhook import (
    STATUS_TOLD,
    Delivery,
    DeliveryState,
    Disabled,
    Webhook,
    WebhookEvent,
)
from comfy_api_service.services.views import JobView, Page

_NOT_TOLD: Final = (
    "params",  # the prompt is in there; the receiver may be somebody else's, and keeps logs
    "progress",
    "current_step",
    "total_steps",
    "current_node",
    "preview_url",
    "queue_position",
    "estimated_start_at",
)
_AT_ITS_END: Final = ("finished_at", "result", "error", "purged_at")


def webhook(one: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": one.id,
        "url": one.url,
        "events": list(one.events),
        "enabled": one.disabled_at is None,
        "created_at": iso(one.created_at),
        "updated_at": iso(one.updated_at),
        "failing_since": iso_or_none(one.failing_since),
        "old_secret_until": iso_or_none(one.old_secret_until),
        "notice": notice_of(one),
    }


def notice_of(one: Webhook | None) -> dict[str, Any] | None:
    """If the service disabled it."""
    if one is None or one.disabled_reason in (None, Disabled.OWNER):
        return None
    return notice(one)


def notice(one: Webhook) -> dict[str, Any]:
    """Of a webhook that the service disabled."""
    said = {
        "gone": "The receiver answered 410 Gone.",
        "failing": "Nothing could be delivered for 3 days.",
    }
    return {
        "kind": "webhook_disabled",
        "webhook_id": one.id,
        "at": iso(one.disabled_at or 0.0),
        "reason": one.disabled_reason,
        "message": f"{said.get(str(one.disabled_reason), '')} Nothing is delivered until it is enabled again.",
    }


def account_secret(found: AccountSecret | None) -> dict[str, Any]:
    return {
        "created_at": None if found is None or found.shown_at is None else iso(found.created_at),
        "old_secret_until": None if found is None else iso_or_none(found.old_secret_until),
    }


def deliveries(found: Page[Delivery]) -> dict[str, Any]:
    return {
        "deliveries": [delivery(one) for one in found.items],
        "next_cursor": cursors.encode(cursors.DELIVERIES, found.next_cursor),
    }


def delivery(one: Delivery) -> dict[str, Any]:
    waiting = one.state is DeliveryState.WAITING
    return {
        "delivery_id": one.id,
        "webhook_id": one.webhook_id,
        "url": one.url,
        "type": one.type,
        "job_id": one.job_id,
        "seq": one.seq,
        "event_at": iso(one.event_at),
        "status": one.state,
        "attempts": one.attempts,
        "next_attempt_at": iso(one.next_at) if waiting else None,
        "expires_at": iso(one.expires_at),
        "ended_at": iso_or_none(one.ended_at),
        "last_status": one.last_status,
        "last_error": one.last_error,
        "log": [
            {
                "at": iso(attempt.at),
                "duration": attempt.seconds,
                "status": attempt.status,
                "error": attempt.error,
            }
            for attempt in one.log
        ],
    }


def sent(one: Delivery, view: JobView | None, base: str) -> Mapping[str, Any]:
    """What the receiver gets: the job as its event left it, with links made now; without what it was asked for."""
    told = {"webhook_id": one.webhook_id} if view is None else {"seq": one.seq, **_job(one, view, base)}
    return {"type": one.type, "timestamp": iso(one.event_at), "data": told}


def _job(one: Delivery, view: JobView, base: str) -> dict[str, Any]:
    told = {name: value for name, value in shapes.job(view, base).items() if name not in _NOT_TOLD}
    told["status"] = STATUS_TOLD[one.type]
    if one.type is WebhookEvent.RUNNING and view.job.status is not Status.RUNNING:
        told.update(dict.fromkeys(_AT_ITS_END), canceling=False)
    if told["result"] is not None:
        told["result"] = {name: value for name, value in told["result"].items() if name != "values"}
    if (error := told["error"]) is not None:  # a node's message may quote the prompt
        told["error"] = {**error, "message": TABLE[error["code"]].means, "details": {}}
    return told
