"""Who calls, by which credential, and who is written down for what was done."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from comfy_api_service.domain.account import LOCAL, Account
from comfy_api_service.domain.credentials import Scope


class Kind(StrEnum):
    """What a caller proved itself with."""

    KEY = "key"
    SESSION = "session"


class Credential(NamedTuple):
    """`id`: the key's public id, or the session's."""

    kind: Kind
    id: str


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. Without authentication there is no credential, and everything is allowed."""

    account: Account
    scopes: frozenset[Scope]
    credential: Credential | None = None
    key_ends_at: float | None = None
    """When the key expires that the caller came with, if it does."""


ALL_SCOPES: Final = frozenset(Scope)
NOBODY: Final = Principal(LOCAL, ALL_SCOPES)
"""Everybody, while authentication is off."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose act it is, for the audit log. `account_id` is None for the shell and for who is not known yet."""

    account_id: str | None
    address: str | None = None
    request_id: str | None = None


SHELL: Final = Actor(None, address="shell")
