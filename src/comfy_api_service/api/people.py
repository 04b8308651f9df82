"""Accounts, keys and what they used, in the shapes of the answers."""

from dataclasses import asdict
from typing import Any

from comfy_api_service.api import webhook_shapes
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.domain.times import iso, iso_or_none
from comfy_api_service.domain.users import User
from comfy_api_service.services.logins import Tokens
from comfy_api_service.services.usage import Usage


def user(found: User, limits: Limits) -> dict[str, Any]:
    return {
        "user_id": found.id,
        "name": found.name,
        "email": found.email,
        "username": found.username,
        "tier": found.tier,
        "role": found.role,
        "limits": asdict(limits),
        "overrides": dict(found.overrides),
        "created_at": iso(found.created_at),
        "disabled_at": iso_or_none(found.disabled_at),
    }


def key(found: Key) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "scopes": sorted(found.scopes),
        "created_at": iso(found.created_at),
        "expires_at": iso_or_none(found.expires_at),
        "last_used_at": iso_or_none(found.used_at),
        "revoked_at": iso_or_none(found.revoked_at),
    }


def tokens(made: Tokens) -> dict[str, Any]:
    return {
        "access_token": made.access,
        "token_type": "bearer",
        "expires_in": made.expires_in,
        "refresh_token": made.refresh,
        "refresh_expires_at": iso(made.refresh_until),
    }


def usage(found: Usage, tier: str, limits: Limits) -> dict[str, Any]:
    return {
        "tier": tier,
        "limits": asdict(limits),
        "left": {
            "images_today": _left(limits.images_per_day, found.used_today),
            "waiting": _left(limits.waiting, found.waiting),
        },
        "running": found.running,
        "waiting": found.waiting,
        "reset_at": iso(found.reset_at),
        "days": [asdict(day) for day in found.days],
        "notices": [webhook_shapes.notice(one) for one in found.stopped],
    }


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(limit - used, 0)
