"""One object on its way to an S3-compatible store: a single put if it is small, else a multipart upload.

A multipart upload that is given up, whatever the reason, is aborted at the store by the library's own task, which
is never cancelled in the middle: what it left there would cost room that no listing shows.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import S3Store

from comfy_api_service.storage.base import ObjectMissing
from comfy_api_service.storage.s3_faults import Cause, StoreFailed, told_apart

if TYPE_CHECKING:
    from obstore import Attributes

PIECE: Final = 1 << 20
"""Bytes that are gathered before they are hashed, in a thread, and handed on."""
PART: Final = 8 << 20
"""Bytes of one request. Larger objects go in parts of this size: 10 000 of them, the most that stores take, make
80 GB, and one passes within `REQUEST_SECONDS` on a line of 4 Mbit/s.
"""
PARTS_AT_ONCE: Final = 3
"""Parts on their way at a time, which, with the one that is gathered, bound an upload's memory to 32 MiB."""
_HASHED_HERE: Final = 128 << 10
"""So few bytes are hashed sooner than a thread is asked."""


class _GivenUp(Exception):
    """Raised into the library's upload, to make it abort."""


class _Feed:
    """Pieces for the library to pull, one at a time."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._given_up = False
        self._over = False

    def __aiter__(self) -> "_Feed":
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.get()
        if self._given_up:
            raise _GivenUp
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def give(self, piece: bytes | None) -> None:
        """Wait until there is room; None is the end. Returns at once when nobody pulls any more."""
        if not self._over:
            await self._pieces.put(piece)

    def give_up(self) -> None:
        self._given_up = True
        self._empty()
        self._pieces.put_nowait(None)

    def close(self) -> None:
        """Nobody pulls any more."""
        self._over = True
        self._empty()

    def _empty(self) -> None:
        while not self._pieces.empty():
            self._pieces.get_nowait()


class Upload:
    """`write` any number of times, then `finish`, or `give_up` at any moment."""

    def __init__(self, store: S3Store, key: str, media_type: str) -> None:
        self._store = store
        self._key = key
        self._attributes: Attributes = {"Content-Type": media_type}
        self._hash = hashlib.sha256()
        self._size = 0
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._held: list[list[bytes]] = []
        self._feed = _Feed()
        self._parts: asyncio.Task[None] | None = None

    async def write(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= PIECE:
            await self._take_in()

    async def finish(self) -> tuple[int, str]:
        """Put the object in its place; its size and SHA-256 in hex."""
        await self._take_in()
        if self._parts is None:
            with _writing():
                await obstore.put_async(
                    self._store,
                    self._key,
                    list(chain.from_iterable(self._held)),
                    attributes=self._attributes,
                    use_multipart=False,
                )
        else:
            await self._feed.give(None)
            await asyncio.shield(self._parts)
            await self._look()
        return self._size, self._hash.hexdigest()

    def give_up(self) -> "asyncio.Task[None] | None":
        """Leave nothing behind; the task, if there is one, that sees to it."""
        if self._parts is not None and not self._parts.done():
            self._feed.give_up()
            return self._parts
        return None

    async def _take_in(self) -> None:
        pieces, self._pieces = self._pieces, []
        size, self._waiting = self._waiting, 0
        if size <= _HASHED_HERE:
            _hash(self._hash, pieces)
        else:
            await asyncio.to_thread(_hash, self._hash, pieces)
        self._size += size
        if pieces:
            self._held.append(pieces)
        if self._parts is None and self._size > PART:
            self._parts = asyncio.create_task(self._put_parts())
            self._parts.add_done_callback(self._ended)
        if self._parts is not None:
            await self._hand_on(self._parts)

    async def _hand_on(self, parts: "asyncio.Task[None]") -> None:
        held, self._held = self._held, []
        for pieces in held:
            # Joined: a hop to the library's threads for each of them would cost more than the copy.
            await self._feed.give(b"".join(pieces))
            if parts.done():
                await parts

    def _ended(self, parts: "asyncio.Task[None]") -> None:
        self._feed.close()
        if not parts.cancelled():
            parts.exception()  # looked at, since nobody waits for an upload that was given up

    async def _put_parts(self) -> None:
        with _writing():
            await obstore.put_async(
                self._store,
                self._key,
                self._feed,
                attributes=self._attributes,
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )

    async def _look(self) -> None:
        """Parts are checked one by one as they arrive; that none is missing shows in the size."""
        with _writing():
            found = await obstore.head_async(self._store, self._key)
        if found["size"] != self._size:
            raise StoreFailed(Cause.OTHER, "incomplete")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        with told_apart("put"):
            yield
    except ObjectMissing:  # said of a put: that is no store
        raise StoreFailed(Cause.OTHER, "404") from None


def _hash(digest: "hashlib._Hash", pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        digest.update(piece)
