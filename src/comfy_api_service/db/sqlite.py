"""SQLite: one writer thread, a few reader threads, WAL, every commit synced to the disk.

A function of a transaction is driven to its end on the thread that owns the connection: its awaits never
suspend, since each query answers at once. A 202 that rests on such a commit survives power loss.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from comfy_api_service.db.base import Dialect, Params, Reader, Row, Tx
from comfy_api_service.domain.errors import Unavailable

T = TypeVar("T")

DIALECT: Final = Dialect("sqlite", for_update="")
BUSY_SECONDS: Final = 5.0
"""How long to wait for a shell command that writes beside the service."""
PAGE_CACHE_KIB: Final = 4096

Work = tuple[Callable[[Any], Awaitable[Any]], asyncio.Future[Any], asyncio.AbstractEventLoop]


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with this service's settings; for the thread that opens it alone."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=512, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"cache_size=-{PAGE_CACHE_KIB}",
        "temp_store=MEMORY",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


class SqliteTx:
    """One transaction on one connection; its methods never suspend."""

    dialect = DIALECT

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def all(self, sql: str, params: Params | None = None) -> Sequence[Row]:
        return self._connection.execute(sql, params or {}).fetchall()

    async def one(self, sql: str, params: Params | None = None) -> Row | None:
        cursor = self._connection.execute(sql, params or {})
        row = cursor.fetchone()
        cursor.close()
        return cast("Row | None", row)

    async def run(self, sql: str, params: Params | None = None) -> int:
        return self._connection.execute(sql, params or {}).rowcount

    async def many(self, sql: str, rows: Iterable[Params]) -> None:
        self._connection.executemany(sql, rows)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("a transaction may await nothing but its own queries")


class _Thread:
    """A thread with a connection of its own that runs functions one after the other."""

    def __init__(self, path: Path, work: "queue.SimpleQueue[Work | None]", *, name: str, begin: str) -> None:
        self._path = path
        self._work = work
        self._begin = begin
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _loop(self) -> None:
        connection: sqlite3.Connection | None = None
        while (work := self._work.get()) is not None:
            function, future, loop = work
            try:
                if connection is None:
                    connection = connect(self._path, read_only=self._begin == "BEGIN")
                result = self._transaction(connection, function)
            except BaseException as fault:  # noqa: BLE001 - every fault goes to whoever waits
                if connection is not None and connection.in_transaction:  # the rollback failed too
                    connection.close()
                    connection = None
                _settle(loop, future, fault=_named(fault))
            else:
                _settle(loop, future, result=result)
            del work, function, future, loop
        if connection is not None:
            connection.close()

    def _transaction(self, connection: sqlite3.Connection, function: Callable[[Any], Awaitable[T]]) -> T:
        connection.execute(self._begin)
        try:
            result = drive(cast("Coroutine[Any, Any, T]", function(SqliteTx(connection))))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        return result


def _named(fault: BaseException) -> BaseException:
    """Faults of the disk or of another process become `Unavailable`; faults of the code stay what they are."""
    of_the_sql = getattr(fault, "sqlite_errorname", "") == "SQLITE_ERROR"
    if isinstance(fault, sqlite3.OperationalError) and not of_the_sql:
        refusal = Unavailable("The database cannot be written to now.")
        refusal.__cause__ = fault
        return refusal
    return fault


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    *,
    result: Any = None,
    fault: BaseException | None = None,
) -> None:
    def deliver() -> None:
        if future.cancelled():
            return
        if fault is not None:
            future.set_exception(fault)
        else:
            future.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(deliver)


class SqliteDatabase:
    """The database of one process. Functions given to `write` run strictly one after the other."""

    dialect = DIALECT

    def __init__(self, path: Path, *, readers: int = 2) -> None:
        self._writes: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._writer = _Thread(path, self._writes, name="db-writer", begin="BEGIN IMMEDIATE")
        self._readers = [
            _Thread(path, self._reads, name=f"db-reader-{n}", begin="BEGIN") for n in range(readers)
        ]
        self._closed = False

    async def write(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        return await self._submit(self._writes, function)

    async def read(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        return await self._submit(self._reads, function)

    def _submit(
        self, work: "queue.SimpleQueue[Work | None]", function: Callable[[Any], Awaitable[T]]
    ) -> asyncio.Future[T]:
        if self._closed:
            raise Unavailable("The database is closed.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        work.put((function, future, loop))
        return future

    async def close(self) -> None:
        """Let what was given finish, then let go of the files."""
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
        for _ in self._readers:
            self._reads.put(None)
        for thread in (self._writer, *self._readers):
            await asyncio.to_thread(thread.join)
