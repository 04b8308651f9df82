"""What operators see, in the shapes of the answers."""

from dataclasses import asdict
from typing import Any

from comfy_api_service.api import shapes
from comfy_api_service.db.audit import Entry
from comfy_api_service.domain.backend import Backend, BackendState
from comfy_api_service.domain.times import iso, iso_or_none
from comfy_api_service.domain.urls import without_password
from comfy_api_service.services.overview import Stats
from comfy_api_service.services.views import JobView


def backend(found: Backend, *, driven: bool) -> dict[str, Any]:
    return {
        "name": found.name,
        "url": without_password(found.url),
        "state": found.state if driven else BackendState.OFFLINE,
        "draining": found.draining,
        "driven": driven,
        "version": found.version,
        "resident_model": found.resident_model,
        "seen_at": iso_or_none(found.seen_at),
        "manual": found.manual,
    }


def stats(found: Stats, now: float) -> dict[str, Any]:
    people, load = found.people, found.load
    oldest = load.oldest_queued_at
    return {
        "users": {
            "by_tier": people.by_tier,
            "administrators": people.administrators,
            "disabled": people.disabled,
        },
        "keys": people.keys,
        "jobs": {
            "queued": load.queued,
            "running": load.running,
            "queued_by_tier": {tier: count for tier, count in load.by_tier.items() if count},
            "oldest_queued_at": iso_or_none(oldest),
            "oldest_wait": None if oldest is None else max(now - oldest, 0.0),
        },
        "backends": {state.value: count for state, count in found.backends.items()},
        "usage": {"today": asdict(found.today), "last_30_days": asdict(found.days)},
    }


def job(view: JobView, base: str) -> dict[str, Any]:
    return {**shapes.job(view, base), "preview_url": None, "user_id": view.job.account_id}


def entry(found: Entry) -> dict[str, Any]:
    return {
        "id": found.id,
        "at": iso(found.at),
        "action": found.action,
        "actor": found.actor_id,
        "target": found.target,
        "address": found.address,
        "request_id": found.request_id,
        "data": dict(found.data),
    }
