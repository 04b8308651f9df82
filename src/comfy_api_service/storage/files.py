"""One file of the local store, on its way in or open to be read; blocks, and is called in threads.

Every `OSError` leaves as a `StorageError` without a path.
"""

import contextlib
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from comfy_api_service.storage.base import ObjectMissing, StorageError, StorageUnavailable
from comfy_api_service.storage.tree import Tree, told_apart


class Writer:
    """One object on its way: `write` any number of times, then `commit`, or `abandon` at any moment.

    `abandon` may run beside the other two: who ends last removes the file.
    """

    def __init__(self, tree: Tree, key: str) -> None:
        self._tree = tree
        self._key = key
        self._path = tree.unfinished / secrets.token_hex(16)
        self._hash = hashlib.sha256()
        self._size = 0
        self._file: int | None = None
        self._lock = threading.Lock()
        self._busy = False
        self._abandoned = False

    def write(self, pieces: Sequence[bytes]) -> None:
        with self._working():
            self._append(pieces)

    def commit(self, pieces: Sequence[bytes]) -> tuple[int, str]:
        """Write the last pieces and put the object in its place; its size and SHA-256 in hex."""
        with self._working():
            self._append(pieces)
            if self._file is not None:
                os.fsync(self._file)
            self._close()
            if not self._abandoned:
                self._tree.publish(self._path, self._key)
        return self._size, self._hash.hexdigest()

    def abandon(self) -> None:
        """Leave nothing behind; what was committed stays."""
        with self._lock:
            self._abandoned = True
            if self._busy:
                return
        self._remove()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            if self._abandoned:
                raise StorageError("The write was given up.")
            self._busy = True
        failed = True
        try:
            with told_apart():
                yield
            failed = False
        except ObjectMissing as error:
            raise StorageUnavailable("The object's place cannot be made.") from error
        finally:
            with self._lock:
                self._busy = False
                remove = failed or self._abandoned
            if remove:
                self._remove()

    def _append(self, pieces: Sequence[bytes]) -> None:
        if self._file is None:
            self._file = self._create()
        for piece in pieces:
            self._hash.update(piece)
            self._size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self._path, flags, 0o640)
        except FileNotFoundError:
            self._tree.unfinished.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o640)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class Opened:
    """A file open for reading; `whole` is its content if that is at most `small` bytes (then closed)."""

    def __init__(self, path: Path, small: int) -> None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._lock = threading.Lock()
        with told_apart():
            try:
                self._file: int | None = os.open(path, flags)
            except PermissionError:
                if path.is_dir():  # what Windows says of a folder
                    raise ObjectMissing("There is no such object.") from None
                raise
            try:
                self.whole: bytes | None = None
                self.size = self._checked_size(self._file)
                if self.size <= small:
                    self.whole = self.read(0, self.size)
            except BaseException:
                self.close()
                raise
        if self.whole is not None:
            self.close()

    def read(self, at: int, length: int) -> bytes:
        """Exactly `length` bytes from `at`; raises `StorageUnavailable` if they are not there any more."""
        if self._file is None:
            raise StorageUnavailable("The object was closed.")
        parts = []
        with told_apart(), self._lock:
            os.lseek(self._file, at, os.SEEK_SET)
            while length:
                part = os.read(self._file, length)
                if not part:
                    raise StorageUnavailable("The object is shorter than it was.")
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    @staticmethod
    def _checked_size(file: int) -> int:

        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing("There is no such object.")
        return status.st_size
