"""The store, as who puts results sees it: what it does not take is asked for again, and waits on the disk.

While the store is known to be away nothing is tried with it: results go to the shelf at once, and the carrier
alone asks for it.
"""

from collections.abc import AsyncIterable, Iterable, Sequence

import structlog

from comfy_api_service.db.transitions import AttemptKey
from comfy_api_service.storage.base import (
    Storage,
    StorageError,
    StorageFull,
    StorageUnavailable,
    Stored,
)
from comfy_api_service.worker.parcel import Parcel
from comfy_api_service.worker.shelf import Shelf, folder_of

log = structlog.get_logger()


class Parking:
    def __init__(self, store: Storage, shelf: Shelf) -> None:
        self._store = store
        self._shelf = shelf
        self._unfit: set[str] = set()
        """Keys that the shelf did not take the last time: the store is asked again, then the shelf, in turn."""
        self.away = False
        """The last thing the store was asked for, it did not do."""

    async def expect(self, prefix: str) -> None:
        if not self.away:
            await self._store.expect(prefix)

    async def forget(self, prefix: str) -> None:
        if not self.away:
            await self._store.forget(prefix)

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        """As a store's. A body can be read once: what the store does not take fails, and is kept the next time."""
        if self.away and key not in self._unfit:
            try:
                return await self._shelf.put(key, body, media_type=media_type)
            except StorageError:
                self._unfit.add(key)
                raise
        self._unfit.discard(key)
        try:
            stored = await self._store.put(key, body, media_type=media_type)
        except (StorageFull, StorageUnavailable):
            self.away = True
            raise
        self.away = False
        return stored

    async def delete(self, keys: Sequence[str]) -> None:
        here = self._shelf.among(keys)
        await self._shelf.remove(here)
        rest = [key for key in keys if key not in here]
        if rest:
            await self._store.delete(rest)

    def parked(self, keys: Iterable[str]) -> frozenset[str]:
        """Those that are not in the store but here."""
        return self._shelf.among(keys)

    async def keep(self, parcel: Parcel) -> None:
        """The result waits for the carrier, however this process ends. Raises `StorageError`."""
        await self._shelf.keep(parcel)
        log.warning("result_parked", job_id=parcel.job_id, attempt=parcel.attempt, files=len(parcel.keys))

    def holds(self, attempt: AttemptKey) -> bool:
        """Whether a result waits for this attempt: nobody else needs to settle it."""
        return self._shelf.holds(attempt)

    async def tidy(self, attempt: AttemptKey) -> None:
        """Remove what was put here for an attempt that ended without a parcel."""
        self._unfit = {key for key in self._unfit if not key.startswith(folder_of(attempt))}
        try:
            await self._shelf.forget(attempt)
        except StorageError:
            log.warning("discard_failed", job_id=attempt[0])
