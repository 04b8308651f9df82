"""Backups as files: a tar, readable by any `tar`, of which each part is hashed as it goes by.

The manifest is its last part, so an archive that was cut short has none. What comes out of an archive was perhaps
written by a stranger: no name of it becomes a path, plain files alone are read.
"""

import asyncio
import hashlib
import os
import tarfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Final

from comfy_api_service.domain.backup import MANIFEST, BackupRefused, Part, damaged

PIECE: Final = 1 << 20
LARGEST_MANIFEST: Final = 64 << 20


class ArchiveWriter:
    """Writes parts one after the other to a file or a pipe."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def add(self, name: str, size: int, body: AsyncIterable[bytes]) -> Part:
        """Exactly `size` bytes are taken; raises `BackupRefused` if there are fewer or more."""
        self._head(name, size)
        digest, left = hashlib.sha256(), size
        async for piece in body:
            digest.update(piece)
            left -= len(piece)
            if left < 0:
                break
            self._file.write(piece)
        if left:
            raise BackupRefused(f"{name} changed its size while it was read.", "Try again.")
        self._pad(size)
        return Part(size, digest.hexdigest())

    def add_text(self, name: str, text: bytes) -> Part:
        self._head(name, len(text))
        self._file.write(text)
        self._pad(len(text))
        return Part(len(text), hashlib.sha256(text).hexdigest())

    async def add_file(self, name: str, path: Path) -> Part:
        return await self.add(name, size_of(path), pieces_of(path))

    def end(self) -> None:
        """Two empty blocks, as every tar ends."""
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush()

    def _head(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o600
        info.mtime = int(time.time())
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))

    def _pad(self, size: int) -> None:
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))


class ArchiveReader:
    """The parts of an archive, in their order. Raises `BackupRefused` for what is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
            self._whole = os.fstat(self._file.fileno()).st_size
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - closed by `close`
        except OSError as fault:
            raise BackupRefused(f"The archive cannot be read: {fault.strerror}.") from fault
        except tarfile.TarError:
            self._file.close()
            raise damaged("it is no tar file") from None

    def close(self) -> None:
        self._tar.close()
        self._file.close()

    def parts(self) -> Iterator[tuple[str, int]]:
        """Name and size of each; one at a time, for an archive may have millions. `pieces` reads the last told."""
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]
                    if not info.isreg() or info.sparse is not None:
                        raise damaged("it holds what is no plain file")
                    if info.offset_data + info.size > self._whole:
                        raise damaged("it was cut short")
                    self._at, self._size = info.offset_data, info.size
                    yield info.name, info.size
        except (tarfile.TarError, EOFError):
            raise damaged("it is no whole tar file") from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the part that was told last."""
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            at, left = self._at, self._size
            while left:
                piece = os.pread(file.fileno(), min(PIECE, left), at)
                if not piece:
                    raise damaged("it was cut short")
                at, left = at + len(piece), left - len(piece)
                await asyncio.sleep(0)  # so that an interruption is heard
                yield piece

    def manifest(self) -> bytes:
        """The text of the last part."""
        name, size = "", 0
        for name, size in self.parts():  # noqa: B007 - the last is wanted
            pass
        if name != MANIFEST or size > LARGEST_MANIFEST:
            raise damaged("it has no manifest at its end")
        return os.pread(self._file.fileno(), size, self._at)


def created(path: Path) -> IO[bytes]:
    """A new file that nobody else can read. Raises `FileExistsError`."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def size_of(path: Path) -> int:
    return path.stat().st_size


async def pieces_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            await asyncio.sleep(0)
            yield piece


async def weighed(body: AsyncIterable[bytes]) -> Part:
    """Size and hash alone."""
    digest, size = hashlib.sha256(), 0
    async for piece in body:
        digest.update(piece)
        size += len(piece)
    return Part(size, digest.hexdigest())


async def hashed(body: AsyncIterable[bytes], to: Path) -> Part:
    """Write a file that is on the disk when this returns."""
    digest, size = hashlib.sha256(), 0
    with created(to) as file:
        async for piece in body:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return Part(size, digest.hexdigest())
