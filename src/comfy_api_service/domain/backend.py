"""A backend: one ComfyUI server as the whole pool knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class BackendState(StrEnum):
    ONLINE = "online"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Backend:
    """What the database says of a backend; `memory` is in bytes by kind (`ram_free`, `vram_free` …)."""

    id: str
    url: str
    name: str
    state: BackendState
    draining: bool = False
    version: str | None = None
    devices: tuple[Mapping[str, Any], ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    inventory_hash: str | None = None
    resident_model: str | None = None
    seen_at: float | None = None
    node_id: str = ""
    """The machine whose settings named it first; a loopback address is reached from there alone."""
    worker_id: str | None = None
    """Who drives it, dead or alive."""
