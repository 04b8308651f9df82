"""API keys as their owners see them."""

from dataclasses import dataclass

from comfy_api_service.domain.credentials import Scope


@dataclass(frozen=True, slots=True)
class Key:
    """`id` is the public part of the key's text; times are seconds since the epoch."""

    id: str
    account_id: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None
    revoked_at: float | None = None
