"""Objects as files in a folder: for one machine, durable, with links that this service serves itself.

A file appears under its name only when it is whole and on the disk. The folder belongs to this class
alone; nothing outside it is ever touched, whatever a key says.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from comfy_api_service.storage import files
from comfy_api_service.storage.base import (
    Listed,
    StorageUnavailable,
    Stored,
    checked_key,
    checked_prefix,
)
from comfy_api_service.storage.links import LinkSigner
from comfy_api_service.storage.tree import Tree

PIECE: Final = 1 << 20
"""Bytes that are gathered before a thread is asked to write them, or read in one go."""
CHECK_SECONDS: Final = 5.0
"""How long `check` waits for a disk that does not answer."""
_LISTED_AT_ONCE: Final = 1000

_P = ParamSpec("_P")
_T = TypeVar("_T")


class LocalStorage:
    """A `Storage` in `folder`, which is made if absent.

    Threads of its own do all file work: a disk that hangs blocks neither the loop nor other users of
    threads. A body of up to 1 MiB costs one hop to a thread, a larger one a hop for each MiB.
    """

    def __init__(self, folder: Path, signer: LinkSigner, *, threads: int = 8) -> None:
        self._tree = Tree(folder)
        self._signer = signer
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="storage")
        self._probe: Future[None] | None = None

    def close(self) -> None:
        """End the threads once what they do now is done; no call may follow."""
        self._threads.shutdown(wait=False)

    async def expect(self, prefix: str) -> None:
        """Make the folder, and sync all above it, while nobody waits for it."""
        await self._hop(self._tree.make, checked_key(prefix))

    async def forget(self, prefix: str) -> None:
        """Remove the folder if it is empty."""
        await self._hop(self._tree.prune, checked_key(prefix))

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        """As the Protocol says; the media type is told by the link, not kept here."""
        del media_type
        writer = files.Writer(self._tree, checked_key(key))
        pieces: list[bytes] = []
        waiting = 0
        try:
            async for chunk in body:
                pieces.append(chunk)
                waiting += len(chunk)
                if waiting >= PIECE:
                    await self._hop(writer.write, pieces)
                    pieces, waiting = [], 0
            size, sha256 = await self._hop(writer.commit, pieces)
        except Exception:
            await self._hop(writer.abandon)
            raise
        except BaseException:  # canceled: a thread may still be writing, on a disk that hangs even
            self._threads.submit(writer.abandon)
            raise
        return Stored(key, size, sha256)

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator["LocalReader"]:
        opened = await self._hop(files.Opened, self._tree.path(checked_key(key)), PIECE)
        try:
            yield LocalReader(opened, self._hop)
        finally:
            opened.close()

    def link(self, key: str, *, expires_at: float, media_type: str, filename: str) -> str:
        return self._signer.link(key, expires_at=expires_at, media_type=media_type, filename=filename)

    async def delete(self, keys: Sequence[str]) -> None:
        """Also removes the folders that are left empty."""
        checked = [checked_key(key) for key in keys]
        if checked:
            await self._hop(self._tree.delete, checked)

    async def list_prefix(self, prefix: str) -> AsyncIterator[Listed]:
        found = self._tree.walk(checked_prefix(prefix))
        while lines := await self._hop(_some, found):
            for line in lines:
                yield line

    async def clear_unfinished(self, before: float) -> int:
        return await self._hop(self._tree.clear_unfinished, before)

    async def check(self) -> None:
        """As the Protocol says, within 5 s; a probe that hangs is waited for, not doubled."""
        if self._probe is None or self._probe.done():
            self._probe = self._threads.submit(self._tree.probe)
        probe = asyncio.wrap_future(self._probe)
        done, _ = await asyncio.wait([probe], timeout=CHECK_SECONDS)
        if not done:
            probe.add_done_callback(_look_at)
            raise StorageUnavailable("The disk does not answer in time.")
        await probe

    async def _hop(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))


class LocalReader:
    """An `ObjectReader` over an open file; one of up to 1 MiB is already in memory."""

    def __init__(
        self, opened: files.Opened, hop: Callable[[Callable[[int, int], bytes], int, int], Awaitable[bytes]]
    ) -> None:
        self._opened = opened
        self._hop = hop

    @property
    def size(self) -> int:
        return self._opened.size

    async def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        end = self.size if end is None else min(end, self.size)
        at = max(start, 0)
        if self._opened.whole is not None:
            if at < end:
                yield self._opened.whole[at:end]
            return
        while at < end:
            piece = await self._hop(self._opened.read, at, min(end - at, PIECE))
            yield piece
            at += len(piece)


def _some(found: Iterator[Listed]) -> list[Listed]:
    return list(islice(found, _LISTED_AT_ONCE))


def _look_at(probe: asyncio.Future[None]) -> None:
    """A probe that ends after all leaves its error unread otherwise, which asyncio reports as a fault."""
    if not probe.cancelled():
        probe.exception()
