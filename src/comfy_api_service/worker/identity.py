"""What tells backends apart, and which of them a machine can reach."""

import hashlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from comfy_api_service.db.workers import Living
from comfy_api_service.domain.backend import Backend

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def backend_id(url: str, node_id: str) -> str:
    """A backend's identity is its URL; a loopback address is qualified by the machine it is on."""
    qualified = f"{node_id}|{url}" if is_loopback(url) else url
    return "bck_" + hashlib.sha256(qualified.encode()).hexdigest()[:26]


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in LOOPBACK or host.startswith("127.")


def reachable(worker: Living, backends: Sequence[Backend]) -> frozenset[str]:
    """The ids of the backends that a worker may drive. Of one that may drive any, those that it can reach:
    loopback addresses belong to their own machine.
    """
    if worker.scope is not None:
        return worker.scope
    return frozenset(
        backend.id
        for backend in backends
        if not is_loopback(backend.url) or backend.node_id == worker.node_id
    )
