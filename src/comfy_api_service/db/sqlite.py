"""SQLite: one writer thread, a few reader threads, WAL, every commit synced to the disk.

A function of a transaction is driven to its end on the thread that owns the connection: its awaits never
suspend, since each query answers at once. A 202 that rests on such a commit survives power loss.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from comfy_api_service.db.base import Dialect, Params, Part, Reader, Row, Tx
from comfy_api_service.db.statements import repeated
from comfy_api_service.domain.errors import Unavailable

T = TypeVar("T")

DIALECT: Final = Dialect("sqlite", one_writer=True)
BUSY_SECONDS: Final = 5.0
"""How long to wait for a shell command that writes beside the service."""
PAGE_CACHE_KIB: Final = 4096
TOGETHER: Final = 8
"""Most functions that share a commit: the first of them waits for the last."""
FOLLOW_SECONDS: Final = 0.001
"""How long a commit waits for the function that was announced to follow; a commit takes as long."""

ROWS_A_STEP: Final = 32
"""Most rows of one INSERT, a power of two like all its sizes, so that few statements are prepared."""

CHECKPOINT_ROWS: Final = 4000
"""Rows written after which what is in the log is copied to the file, beside the writer."""
CHECKPOINT_PAGES: Final = 8000
"""Pages in the log at which the writer copies what is left itself, while it holds up those that wait."""

Function = Callable[[Any], Coroutine[Any, Any, Any]]
Work = tuple[Function, asyncio.Future[Any], asyncio.AbstractEventLoop, bool]


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
        f"wal_autocheckpoint={CHECKPOINT_PAGES}",
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

    async def several(self, *queries: tuple[str, Params]) -> list[Sequence[Row]]:
        return [self._connection.execute(sql, params).fetchall() for sql, params in queries]

    async def run(self, sql: str, params: Params | None = None) -> int:
        return self._connection.execute(sql, params or {}).rowcount

    async def many(self, sql: str, rows: Iterable[Params]) -> None:
        self._insert(sql, list(rows))

    async def lock(self, name: str) -> None:
        """Nobody else writes."""

    async def together(self, *statements: Part) -> None:
        for sql, params in statements:
            if isinstance(params, Mapping):
                self._connection.execute(sql, params)
            else:
                self._insert(sql, params)

    async def one_together(self, first: tuple[str, Params], *others: Part) -> Row | None:
        row = await self.one(*first)
        await self.together(*others)
        return row

    def _insert(self, sql: str, rows: Sequence[Params]) -> None:
        """Several rows a step: each step gives the loop's thread the interpreter, and has to ask for it again."""
        first = 0
        while (left := len(rows) - first) > 1:
            times = min(1 << left.bit_length() - 1, ROWS_A_STEP)
            several = repeated(sql, times)
            if several is None:
                break
            text, names = several
            row = itemgetter(*names) if len(names) > 1 else lambda one, name=names[0]: (one[name],)
            self._connection.execute(text, tuple(chain.from_iterable(map(row, rows[first : first + times]))))
            first += times
        self._connection.executemany(sql, rows[first:] if first else rows)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("a transaction may await nothing but its own queries")


class _Thread:
    """A thread with a connection of its own that runs functions one after the other.

    Reads share no transaction: one that came later must see what was committed meanwhile.
    """

    def __init__(
        self,
        path: Path,
        work: "queue.SimpleQueue[Work | None]",
        *,
        name: str,
        read_only: bool,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        """`committed` is called after each commit, on the thread, with the rows that were written so far."""
        self._committed = committed
        self._path = path
        self._work = work
        self._begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        self._read_only = read_only
        self._together = 1 if read_only else TOGETHER
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _loop(self) -> None:
        connection: sqlite3.Connection | None = None
        while (work := self._work.get()) is not None:
            done: list[_Done] = []
            try:
                if connection is None:
                    connection = connect(self._path, read_only=self._read_only)
                self._transaction(connection, work, done)
            except BaseException as fault:  # noqa: BLE001 - every fault goes to whoever waits
                if connection is not None and connection.in_transaction:  # the rollback failed too
                    connection.close()
                    connection = None
                for one in done or [_Done(work)]:
                    _settle(one.work, fault=_named(one.fault or fault))
            else:
                if self._committed is not None:
                    self._committed(connection.total_changes)
                for one in reversed(done):  # who follows sends work to a backend, which idles meanwhile
                    _settle(one.work, result=one.result, fault=one.fault and _named(one.fault))
            del work, done
        if connection is not None:
            connection.close()

    def _transaction(self, connection: sqlite3.Connection, first: Work, done: "list[_Done]") -> None:
        """The first function, and those that came meanwhile: they share the commit, which costs more than
        they do. Each fails alone, unless the commit fails.
        """
        work: Work | None = first
        connection.execute(self._begin)
        try:
            while work is not None:
                done.append(one := _Done(work))
                connection.execute("SAVEPOINT one")
                try:
                    one.result = drive(work[0](SqliteTx(connection)))
                except Exception as fault:  # noqa: BLE001 - it goes to whoever waits
                    connection.execute("ROLLBACK TO one")
                    one.fault = fault
                connection.execute("RELEASE one")
                work = self._next(followed=work[3]) if len(done) < self._together else None
            _commit(connection)
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _next(self, *, followed: bool) -> Work | None:
        """What waits already, or comes at once where that is known; the end of the thread is left for later."""
        try:
            work = self._work.get(timeout=FOLLOW_SECONDS) if followed else self._work.get_nowait()
        except queue.Empty:
            return None
        if work is None:
            self._work.put(None)
        return work


class _Checkpointer:
    """A thread that copies the log into the file while the writer goes on: a commit of its own that did so would
    take twice to ten times as long as the others, and everybody behind it waits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copied = 0
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="db-checkpointer", daemon=True)
        self._thread.start()

    def committed(self, rows: int) -> None:
        """On the writer's thread; `rows`: written by its connection so far."""
        if not 0 <= rows - self._copied < CHECKPOINT_ROWS:  # below 0: the connection is another one
            self._copied = rows
            self._due.put(True)

    def join(self) -> None:
        self._due.put(False)
        self._thread.join()

    def _loop(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._due.get():
            with contextlib.suppress(sqlite3.Error):  # a full disk: the writer finds out
                connection = connection or connect(self._path)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if connection is not None:
            connection.close()


@dataclass(slots=True)
class _Done:
    """A function of a transaction, and what it gave."""

    work: Work
    result: Any = None
    fault: BaseException | None = None


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


def _named(fault: BaseException) -> BaseException:
    """Faults of the disk or of another process become `Unavailable`; faults of the code stay what they are."""
    of_the_sql = getattr(fault, "sqlite_errorname", "") == "SQLITE_ERROR"
    if isinstance(fault, sqlite3.OperationalError) and not of_the_sql:
        refusal = Unavailable("The database cannot be written to now.")
        refusal.__cause__ = fault
        return refusal
    return fault


def _settle(work: Work, *, result: Any = None, fault: BaseException | None = None) -> None:
    _, future, loop, _ = work

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
        self._checkpointer = _Checkpointer(path)
        self._writer = _Thread(
            path, self._writes, name="db-writer", read_only=False, committed=self._checkpointer.committed
        )
        self._readers = [
            _Thread(path, self._reads, name=f"db-reader-{n}", read_only=True) for n in range(readers)
        ]
        self._closed = False

    async def write(
        self, function: Callable[[Tx], Awaitable[T]], *, followed: bool = False, single: bool = False
    ) -> T:
        del single  # a transaction costs no round trips here
        return await self._submit(self._writes, function, followed=followed)

    async def read(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        return await self._submit(self._reads, function)

    def _submit(
        self,
        work: "queue.SimpleQueue[Work | None]",
        function: Callable[[Any], Awaitable[T]],
        *,
        followed: bool = False,
    ) -> asyncio.Future[T]:
        if self._closed:
            raise Unavailable("The database is closed.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        work.put((cast("Function", function), future, loop, followed))
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
        await asyncio.to_thread(self._checkpointer.join)
