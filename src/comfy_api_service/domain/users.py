"""People with accounts, as operators see them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_api_service.domain.account import Account, Role
from comfy_api_service.domain.tiers import Limits, limits_of, understood

EMAIL_MOST: Final = 254
_EMAIL: Final = re.compile(r"[^\s@\x00-\x20\x7f]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")


@dataclass(frozen=True, slots=True)
class User:
    """`overrides` are limits in place of the tier's, as they were given; times are seconds since the epoch."""

    id: str
    name: str
    email: str | None
    username: str | None
    tier: str
    role: Role
    created_at: float
    disabled_at: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def account(self, tiers: Mapping[str, Limits]) -> Account:
        """The caller that this person is."""
        limits = limits_of(tiers, self.tier, understood(self.overrides), admin=self.role is Role.ADMIN)
        return Account(self.id, self.name, self.tier, self.role, limits)


def email_of(text: str) -> str:
    """In small letters, as it is compared. Raises `ValueError`."""
    found = text.strip().lower()
    if len(found) > EMAIL_MOST or not _EMAIL.fullmatch(found) or ".." in found:
        raise ValueError("must be an e-mail address")
    return found


def username_of(text: str) -> str:
    """In small letters, as it is compared. Raises `ValueError`."""
    found = text.strip().lower()
    if not _USERNAME.fullmatch(found):
        raise ValueError(
            "must have 2 to 32 letters, digits, dots, hyphens and underscores, a letter or digit first"
        )
    return found
