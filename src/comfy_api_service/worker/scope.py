"""Which backends a worker may drive."""

from collections.abc import Sequence

from comfy_api_service.db.workers import Living
from comfy_api_service.domain.backend import Backend, is_loopback


def drivable(worker: Living, backends: Sequence[Backend]) -> frozenset[str]:
    """The ids of the backends that a worker may drive: those that its settings name and those that an operator
    added; all if its settings name none. Loopback addresses can be reached on their own machine alone.
    """
    near = [one for one in backends if not is_loopback(one.url) or one.node_id == worker.node_id]
    if worker.scope is None:
        return frozenset(one.id for one in near)
    return worker.scope | {one.id for one in near if one.manual}
