"""The place on this machine's disk where finished results wait for the store: durable, within a bound.

Files come first, one by one; a parcel then says that a result's files are all somewhere, here or in the store.
Files without a parcel are worth nothing: their attempt is settled anew, from the backend.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Final

import structlog

from comfy_api_service.db.transitions import AttemptKey
from comfy_api_service.domain.clock import Clock
from comfy_api_service.storage.base import ObjectReader, Storage, StorageError, StorageFull, Stored
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.parcel import Parcel, ParcelDamaged, packed, unpacked

log = structlog.get_logger()

PARCEL: Final = "parcel.json"
_LARGEST_PARCEL: Final = 16 << 20


class Shelf:
    def __init__(self, disk: Storage, clock: Clock, metrics: Metrics, *, limit_bytes: int) -> None:
        """`disk` is nobody else's; `limit_bytes` bounds the files on it."""
        self._disk = disk
        self._clock = clock
        self._metrics = metrics
        self._limit = limit_bytes
        self._sizes: dict[str, int] = {}
        self._taken = 0
        self._parcels: OrderedDict[AttemptKey, Parcel] = OrderedDict()
        self._since: dict[AttemptKey, float] = {}
        """When each began to wait, on the monotonic clock: a step of the other one ends no waiting."""
        self.some = asyncio.Event()
        """Set while there are parcels."""

    async def load(self) -> None:
        """What an earlier process left. Files without a parcel are removed; so is what cannot be read."""
        found = [line async for line in self._disk.list_prefix("jobs/")]
        self._sizes = {line.key: line.bytes for line in found}
        self._taken = sum(self._sizes.values())
        for key in [key for key in self._sizes if key.endswith(f"/{PARCEL}")]:
            try:
                self._enter(unpacked(await self._read(key)))
            except (ParcelDamaged, StorageError):
                log.error("parcel_unreadable")  # noqa: TRY400 - the text would name the place
        wanted = {key for parcel in self._parcels.values() for key in (*parcel.keys, _place(parcel))}
        await self.remove(self._sizes.keys() - wanted)
        if self._parcels:
            log.info("parcels_found", parcels=len(self._parcels), bytes=self._taken)

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        """As a store's `put`; `StorageFull` also beyond the bound."""
        counted = 0

        async def bounded() -> AsyncIterator[bytes]:
            nonlocal counted
            async for chunk in body:
                counted += len(chunk)
                self._taken += len(chunk)
                if self._taken > self._limit:
                    raise StorageFull("No more results may wait on this disk.")
                yield chunk

        try:
            stored = await self._disk.put(key, bounded(), media_type=media_type)
        except BaseException:
            self._taken -= counted
            raise
        self._taken -= self._sizes.get(key, 0)
        self._sizes[key] = stored.bytes
        self._measure()
        return stored

    def open(self, key: str) -> AbstractAsyncContextManager[ObjectReader]:
        return self._disk.open(key)

    def among(self, keys: Iterable[str]) -> frozenset[str]:
        """Those of the keys whose files are here."""
        return frozenset(keys) & self._sizes.keys()

    async def remove(self, keys: Iterable[str]) -> None:
        """Files; absent ones are no error."""
        gone = sorted(self.among(keys))
        await self._disk.delete(gone)
        self._taken -= sum(self._sizes.pop(key) for key in gone)
        self._measure()

    async def forget(self, attempt: AttemptKey) -> None:
        """Files of an attempt that has no parcel."""
        if attempt not in self._parcels:
            await self.remove([key for key in self._sizes if key.startswith(folder_of(attempt))])

    # --- parcels ---------------------------------------------------------------------------------------

    async def keep(self, parcel: Parcel) -> None:
        """From here on, however this process ends, the result waits."""
        stored = await self._disk.put(_place(parcel), _once(packed(parcel)), media_type="application/json")
        self._taken += stored.bytes
        self._sizes[stored.key] = stored.bytes
        self._enter(parcel)

    async def drop(self, parcel: Parcel) -> None:
        """The parcel first: without it the files mean nothing."""
        if self._parcels.pop(parcel.key, None) is None:
            return
        self._since.pop(parcel.key, None)
        if not self._parcels:
            self.some.clear()
        await self.remove([_place(parcel)])
        await self.remove(parcel.keys)

    def holds(self, attempt: AttemptKey) -> bool:
        return attempt in self._parcels

    def job_ids(self) -> set[str]:
        return {job_id for job_id, _ in self._parcels}

    def of_job(self, job_id: str) -> Parcel | None:
        return next((one for (of, _), one in self._parcels.items() if of == job_id), None)

    def next(self, most: int) -> list[Parcel]:
        """Those that wait longest since they were kept or put back."""
        return list(islice(self._parcels.values(), most))

    def put_back(self, parcel: Parcel) -> None:
        """Behind the others, so that one that nobody takes does not hold them up."""
        if parcel.key in self._parcels:
            self._parcels.move_to_end(parcel.key)

    def waited(self, parcel: Parcel) -> float:
        """Seconds."""
        return self._clock.monotonic() - self._since.get(parcel.key, self._clock.monotonic())

    def _enter(self, parcel: Parcel) -> None:
        before = max(self._clock.now() - parcel.made_at, 0.0)
        self._parcels[parcel.key] = parcel
        self._since[parcel.key] = self._clock.monotonic() - before
        self.some.set()
        self._measure()

    async def _read(self, key: str) -> bytes:
        async with self._disk.open(key) as reader:
            if reader.size > _LARGEST_PARCEL:
                raise ParcelDamaged("This is too large for a parcel.")
            return b"".join([chunk async for chunk in reader.chunks()])

    def _measure(self) -> None:
        self._metrics.parked.set(len(self._parcels))
        self._metrics.parked_bytes.set(self._taken)


def folder_of(attempt: AttemptKey) -> str:
    """What the keys of an attempt's files begin with."""
    return f"jobs/{attempt[0]}/{attempt[1]}/"


def _place(parcel: Parcel) -> str:
    return f"{folder_of(parcel.key)}{PARCEL}"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
