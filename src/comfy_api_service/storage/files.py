"""The file work of the local store: plain functions that block, to be called in threads.

Every `OSError` leaves here as a `StorageError` without a path.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from comfy_api_service.storage.base import (
    Listed,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

UNFINISHED: Final = ".unfinished"
"""The folder of files that are being written: inside the store, so that a rename can move them."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYNCED_KNOWN: Final = 4096


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """Turns an `OSError` into the `StorageError` that it means."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("The disk is full.") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise ObjectMissing("There is no such object.") from error
        raise StorageUnavailable("The disk could not be read or written.") from error


class Tree:
    """The folder with the objects, and what is known to be durable of its folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unfinished = root / UNFINISHED
        self._synced: OrderedDict[Path, None] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        """The place of a key that was checked before."""
        return self.root / key

    def publish(self, written: Path, key: str) -> None:
        """Move a synced file to its key's place; when this returns, the place is on the disk too."""
        target = self.path(key)
        for last in (False, False, False, True):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                written.replace(target)
                break
            except FileNotFoundError:  # a delete took the empty folder away in between
                if last:
                    raise
            except OSError:
                self._prune(target.parent)
                raise
        sync_folder(target.parent)
        self._sync_above(target.parent)

    def delete(self, keys: Sequence[str]) -> None:
        with told_apart():
            for key in keys:
                path = self.path(key)
                try:
                    path.unlink()
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError:
                    if path.is_dir():  # a key's beginning is no object
                        continue
                    raise
                self._prune(path.parent)

    def walk(self, prefix: str) -> Iterator[Listed]:
        """What stands under keys that begin with `prefix`; what goes away meanwhile is left out."""
        folders = [prefix.rpartition("/")[0]]
        while folders:
            folder = folders.pop()
            try:
                with told_apart(), os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        key = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.name.startswith(".") or not key.startswith(prefix):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(key)
                        elif entry.is_file(follow_symlinks=False):
                            with contextlib.suppress(FileNotFoundError):
                                status = entry.stat(follow_symlinks=False)
                                yield Listed(key, status.st_size, status.st_mtime)
            except ObjectMissing:
                continue

    def clear_unfinished(self, before: float) -> int:
        removed = 0
        with contextlib.suppress(ObjectMissing), told_apart(), os.scandir(self.unfinished) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink()
                        removed += 1
        return removed

    def probe(self) -> None:
        """Write a file, sync it, read it back, remove it."""
        content = secrets.token_bytes(32)
        path = self.unfinished / f"probe-{secrets.token_hex(8)}"
        with told_apart():
            try:
                self.unfinished.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if path.read_bytes() != content:
                    raise StorageUnavailable("The disk gives back something else than was written.")
            finally:
                path.unlink(missing_ok=True)

    def _sync_above(self, folder: Path) -> None:
        """Sync each folder above, unless it is known that this was done since it got this child."""
        while folder != self.root and self.root in folder.parents:
            with self._lock:
                known = folder in self._synced
            if not known:
                sync_folder(folder.parent)
                with self._lock:
                    self._synced[folder] = None
                    while len(self._synced) > _SYNCED_KNOWN:
                        self._synced.popitem(last=False)
            folder = folder.parent

    def _prune(self, folder: Path) -> None:
        while folder != self.root and self.root in folder.parents:
            with self._lock:
                self._synced.pop(folder, None)
            try:
                folder.rmdir()
            except OSError:  # not empty, or already gone
                return
            folder = folder.parent


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


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk; where the system has no such call, its journal must do."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # the object was deleted meanwhile, and its folder with it
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
