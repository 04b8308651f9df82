"""Copies of an SQLite database, made while the service writes to it, and put back while nobody does."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from comfy_api_service.db import kept
from comfy_api_service.db.base import Reader
from comfy_api_service.db.migrate import revision_of
from comfy_api_service.db.sqlite import BUSY_SECONDS, SqliteTx, drive
from comfy_api_service.domain.backup import BackupRefused, Engine, Told, damaged

PAGES_A_STEP: Final = 2000
_BESIDE: Final = ("", "-wal", "-shm")
"""What SQLite keeps beside the file. A log that is left beside another database would be taken for its own."""


class SqliteBacked:
    """The database in the file at `path`."""

    engine: Engine = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def revision(self) -> str | None:
        return await asyncio.to_thread(revision_of, self._path)

    @asynccontextmanager
    async def copied(self, to: Path, told: Told) -> AsyncGenerator[Reader]:
        await asyncio.to_thread(copy, self._path, to, lambda done, whole: told("database", done, whole))
        with closing(_opened(to, "ro")) as connection:
            yield SqliteTx(connection)

    async def is_kept(self, key: str, revision: str) -> bool:
        with closing(_opened(self._path, "rw")) as connection:
            return drive(kept.is_kept(SqliteTx(connection), key, revision))

    async def is_empty(self) -> bool:
        return not any(path.exists() for path in self._files())

    async def set_aside(self, stamp: str) -> str:
        folder = self._path.parent / f"replaced-{stamp}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in reversed(list(self._files())):  # the log is never without its database
            with contextlib.suppress(FileNotFoundError):
                path.rename(folder / path.name)
        return str(folder)

    async def restore(self, copy: Path, told: Told) -> None:
        told("database", 0, None)
        await asyncio.to_thread(check, copy)
        await asyncio.to_thread(copy.rename, self._path)

    def _files(self) -> Iterator[Path]:
        return (self._path.with_name(self._path.name + end) for end in _BESIDE)


def copy(source: Path, to: Path, progress: Callable[[int, int], None]) -> None:
    """The database as it is at one moment, in one file that is on the disk; bytes done, and of how many.

    The copy reads within one transaction, so it is of one moment however long it takes, holds up no writer, and
    never begins anew. Raises `BackupRefused`.
    """
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(_opened(source, "rw")) as database, closing(sqlite3.connect(to)) as target:
            page = database.execute("PRAGMA page_size").fetchone()[0]
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on nothing changes
            database.backup(
                target,
                pages=PAGES_A_STEP,
                progress=lambda _, left, whole: progress((whole - left) * page, whole * page),
                sleep=0.0,
            )
            database.execute("COMMIT")
            target.execute("PRAGMA journal_mode=DELETE")  # one file: the service turns its log on again
    except sqlite3.Error as fault:
        raise BackupRefused(
            f"The database cannot be copied: {fault}.",
            "`comfy-api doctor` says more; is there room on the disk?",
        ) from fault
    descriptor = os.open(to, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def check(path: Path) -> None:
    """Raises `BackupRefused` if the file is no sound database."""
    try:
        with closing(_opened(path, "ro")) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.Error as fault:
        raise damaged(f"its database cannot be opened ({fault})") from fault
    if found != ["ok"] or dangling is not None:
        raise damaged("its database is not sound")


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    connection.row_factory = sqlite3.Row
    return connection
