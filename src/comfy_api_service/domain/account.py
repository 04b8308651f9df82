"""Who owns jobs. While authentication is off there is one local account, without limits."""

from dataclasses import dataclass
from typing import Final

from comfy_api_service.domain.ids import LOCAL_ACCOUNT


@dataclass(frozen=True, slots=True)
class Account:
    """A caller. `link_ttl` and `retention` are seconds; `weight` is the share in fair queueing."""

    id: str
    name: str
    tier: str
    role: str = "user"
    weight: float = 1.0
    link_ttl: float = 7 * 86400.0
    retention: float = 90 * 86400.0


LOCAL: Final = Account(id=LOCAL_ACCOUNT, name="local", tier="local", role="admin")
