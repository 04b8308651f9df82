"""Who owns jobs. While authentication is off there is one local account, without limits."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.tiers import UNLIMITED, Limits


class Role(StrEnum):
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Account:
    """A caller, with what holds for it now."""

    id: str
    name: str
    tier: str
    role: Role = Role.USER
    limits: Limits = UNLIMITED


LOCAL: Final = Account(id=LOCAL_ACCOUNT, name="local", tier="local", role=Role.ADMIN)
