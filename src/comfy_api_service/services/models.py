"""The models of the pool, by kind, with the backends that have each."""

from comfy_api_service.services.pool import Pool
from comfy_api_service.services.views import ModelEntry, Page


class Models:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def list(self, *, kind: str | None, name: str | None, cursor: str | None, limit: int) -> Page[ModelEntry]:
        """Sorted by kind and name; `name` matches a part of it, in any case. The cursor is `kind/name`."""
        entries = [
            ModelEntry(one_kind, one_name, backends)
            for one_kind, names in sorted(self._pool.view.catalogue.models.items())
            if kind is None or one_kind == kind
            for one_name, backends in sorted(names.items())
            if name is None or name.casefold() in one_name.casefold()
        ]
        if cursor is not None:
            entries = [entry for entry in entries if f"{entry.kind}/{entry.name}" > cursor]
        shown = entries[:limit]
        more = len(entries) > limit
        return Page(tuple(shown), f"{shown[-1].kind}/{shown[-1].name}" if more else None)
