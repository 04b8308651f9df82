"""The folder of the local store: its objects' places, and what is known to be durable of them.

All of it blocks and is called in threads. Every `OSError` leaves as a `StorageError` without a path.
"""

import contextlib
import errno
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from comfy_api_service.storage.base import (
    Listed,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
)

UNFINISHED: Final = ".unfinished"
"""The folder of files that are being written: inside the store, so that a rename can move them."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYNCED_KNOWN: Final = 4096
_TRIES: Final = 20


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

    def make(self, prefix: str) -> None:
        """The folder of keys that are about to be put, on the disk with all above it."""
        folder = self.path(prefix)
        with told_apart():
            folder.mkdir(parents=True, exist_ok=True)
            self._sync_above(folder)

    def prune(self, prefix: str) -> None:
        """Remove an empty folder, and those above it that become empty."""
        self._prune(self.path(prefix))

    def publish(self, written: Path, key: str) -> None:
        """Move a synced file to its key's place; when this returns, the place is on the disk too."""
        target = self.path(key)
        for tries_left in reversed(range(_TRIES)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                written.replace(target)
                break
            except OSError as error:
                # A delete may take the empty folder away in between, even while `mkdir` looks at it.
                if tries_left and isinstance(error, FileNotFoundError | FileExistsError):
                    continue
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
