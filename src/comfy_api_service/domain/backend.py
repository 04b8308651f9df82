"""A backend: one ComfyUI server as the whole pool knows it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


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
    manual: bool = False
    """Added by an operator, not by a worker's settings: any worker that can reach it may drive it."""


def backend_id(url: str, node_id: str) -> str:
    """A backend's identity is its URL; a loopback address is qualified by the machine it is on."""
    qualified = f"{node_id}|{url}" if is_loopback(url) else url
    return "bck_" + hashlib.sha256(qualified.encode()).hexdigest()[:26]


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in LOOPBACK or host.startswith("127.")
