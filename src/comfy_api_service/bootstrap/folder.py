"""The data folder: who works in it, and the service's own key."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

PLACES: Final = 64
"""Most workers that share a data folder."""
KEY_BYTES: Final = 32
KEY: Final = "secret.key"
LOCK: Final = "worker.lock"
ARTIFACTS: Final = "artifacts"


class DataFolderInUse(Exception):
    """Another process of the service works on this data folder."""


class DataFolderUnusable(Exception):
    """The data folder cannot be made or written to."""


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's own part of the data folder."""

    folder: Path
    previous: str | None
    """The id of the worker that had it before, which is dead: its lock ended with it."""


def make(folder: Path) -> None:
    """Raises `DataFolderUnusable`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts are in it
    except OSError as fault:
        raise DataFolderUnusable(f"The data folder cannot be made: {fault.strerror}.") from fault


@contextmanager
def only_worker(path: Path) -> Iterator[IO[str]]:
    """An exclusive lock, held for the life of the process, that ends with it however it dies. Raises
    `DataFolderInUse`, `DataFolderUnusable`.
    """
    try:
        handle = path.open("a+")
    except OSError as fault:
        raise DataFolderUnusable(f"The data folder cannot be written to: {fault.strerror}.") from fault
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderInUse("Another process of the service uses this data folder.") from None
        yield handle


@contextmanager
def place(data_dir: Path, worker_id: str, *, alone: bool) -> Iterator[Place]:
    """A part of the data folder that no other worker has: the folder itself if it is free, else one below it.

    `alone`: the folder itself, or none.
    """
    for number in range(1, PLACES + 1):
        folder = data_dir if number == 1 else data_dir / f"worker-{number}"
        make(folder)
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(only_worker(folder / LOCK))
            except DataFolderInUse:
                if alone:
                    raise
                continue
            handle.seek(0)
            previous = handle.read().strip() or None
            handle.truncate(0)
            handle.write(worker_id)
            handle.flush()
            yield Place(folder, previous)
            return
    raise DataFolderInUse("Too many processes of the service use this data folder.")


def own_key(data_dir: Path) -> bytes:
    """The service's own key, made at the first start and kept; processes that start together agree on one."""
    path = data_dir / KEY
    with contextlib.suppress(FileNotFoundError):
        kept = path.read_bytes()
        if len(kept) >= KEY_BYTES:
            return kept
        path.unlink(missing_ok=True)  # cut short by a crash
    temporary = data_dir / f"secret.{secrets.token_hex(4)}.new"
    temporary.touch(mode=0o600)
    try:
        temporary.write_text(secrets.token_hex(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    return path.read_bytes()
