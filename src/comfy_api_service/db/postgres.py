"""PostgreSQL: a pool of connections that write, and one of those that read.

A function of a transaction is awaited between BEGIN and COMMIT; after a conflict with another one, or when
its connection was lost before the commit, it runs again from its begin. Reads run without a transaction of
their own: each statement sees what was committed when it began, as it would inside of one.
"""

import asyncio
import contextlib
import random
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Self, TypeAlias, TypeVar

import asyncpg
import structlog

from comfy_api_service.db.base import (
    CommitUnknown,
    Dialect,
    LockTimeout,
    Params,
    Part,
    Reader,
    Row,
    Tx,
    loads,
)
from comfy_api_service.db.connecting import CONNECT_SECONDS, is_lost, options
from comfy_api_service.db.statements import Statement, for_many, gathered, joined, numbered, takes_many
from comfy_api_service.domain.errors import ServiceError, Unavailable

log = structlog.get_logger()
T = TypeVar("T")
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

DIALECT: Final = Dialect("postgresql", one_writer=False)
PAUSES: Final = (0.005, 0.02, 0.08)
"""Seconds before a transaction runs again, each stretched at random by up to as much."""
FREE_SECONDS: Final = CONNECT_SECONDS
"""How long to wait for a connection that is free."""
CLOSE_SECONDS: Final = 5.0

_CONFLICTS: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,  # a newer version has changed the table
    asyncpg.UniqueViolationError,  # written by somebody else since it was looked for
    asyncpg.ForeignKeyViolationError,  # deleted, or used, by somebody else since
)
_AWAY: Final = (
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)


class PostgresTx:
    """The statements of one transaction, or of a reader, on one connection."""

    dialect = DIALECT

    def __init__(self, connection: Connection, types: dict[str, Statement]) -> None:
        """`types`: statements for many rows, once the types of their values are known."""
        self._connection = connection
        self._for_many = types

    async def all(self, sql: str, params: Params | None = None) -> Sequence[Row]:
        statement = numbered(sql)
        return await self._connection.fetch(statement.sql, *statement.values(params or {}))

    async def one(self, sql: str, params: Params | None = None) -> Row | None:
        statement = numbered(sql)
        return await self._connection.fetchrow(statement.sql, *statement.values(params or {}))

    async def several(self, *queries: tuple[str, Params]) -> list[Sequence[Row]]:
        statements = tuple(numbered(sql) for sql, _ in queries)
        values = [
            value
            for statement, (_, params) in zip(statements, queries, strict=True)
            for value in statement.values(params)
        ]
        row = await self._connection.fetchrow(_gathered(statements), *values)
        return [loads(rows) for rows in row] if row is not None else []

    async def run(self, sql: str, params: Params | None = None) -> int:
        statement = numbered(sql)
        status = await self._connection.execute(statement.sql, *statement.values(params or {}))
        return _touched(status)

    async def many(self, sql: str, rows: Iterable[Params]) -> None:
        listed = list(rows)
        if len(listed) == 1:
            await self.run(sql, listed[0])
        elif listed and takes_many(sql):
            statement = await self._statement_for_many(sql)
            await self._connection.execute(statement.sql, *statement.columns(listed))
        elif listed:
            statement = numbered(sql)
            await self._connection.executemany(statement.sql, [statement.values(row) for row in listed])

    async def lock(self, name: str) -> None:
        await self._connection.execute("SELECT pg_advisory_xact_lock($1)", zlib.crc32(name.encode()))

    async def together(self, *statements: Part) -> None:
        parts, values = await self._parts(statements)
        if parts:
            await self._connection.execute(_joined(parts, gives=False), *values)

    async def one_together(self, first: tuple[str, Params], *others: Part) -> Row | None:
        parts, values = await self._parts((first, *others))
        return await self._connection.fetchrow(_joined(parts, gives=True), *values)

    async def _parts(self, statements: Iterable[Part]) -> tuple[tuple[Statement, ...], list[Any]]:
        """Those that have rows, and the values for all their places."""
        parts: list[Statement] = []
        values: list[Any] = []
        for sql, params in statements:
            if isinstance(params, Mapping):
                parts.append(numbered(sql))
                values += parts[-1].values(params)
            elif len(params) == 1:
                parts.append(numbered(sql))
                values += parts[-1].values(params[0])
            elif params:
                parts.append(await self._statement_for_many(sql))
                values += parts[-1].columns(params)
        return tuple(parts), values

    async def _statement_for_many(self, sql: str) -> Statement:
        known = self._for_many.get(sql)
        if known is None:
            prepared = await self._connection.prepare(numbered(sql).sql)
            known = for_many(sql, [kind.name for kind in prepared.get_parameters()])
            self._for_many[sql] = known
        return known


@lru_cache(maxsize=256)
def _gathered(queries: tuple[Statement, ...]) -> str:
    return gathered(queries)


@lru_cache(maxsize=256)
def _joined(parts: tuple[Statement, ...], *, gives: bool) -> str:
    return parts[0].sql if len(parts) == 1 else joined(parts, gives=gives)


def _touched(status: str) -> int:
    """The number of rows in `UPDATE 3` or `INSERT 0 3`; 0 where there is none."""
    count = status.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0


class PostgresDatabase:
    """The database that many processes share."""

    dialect = DIALECT

    def __init__(self, writers: Pool, readers: Pool) -> None:
        self._writers = writers
        self._readers = readers
        self._for_many: dict[str, Statement] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, application: str, connections: int) -> Self:
        """At most `connections` (at least 2), made when they are needed; `application` is shown by the server."""
        readers = max(connections // 2, 1)
        writers = max(connections - readers, 1)
        return cls(
            await _pool(options(url, application=application), writers),
            await _pool(options(url, application=application, read_only=True), readers),
        )

    async def write(
        self, function: Callable[[Tx], Awaitable[T]], *, followed: bool = False, single: bool = False
    ) -> T:
        del followed  # writes stand in no line here
        return await self._to_its_end(self._write(function, single=single))

    async def read(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        return await self._to_its_end(self._read(function))

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """As on SQLite's thread: it goes on when its caller leaves."""
        if self._closed:
            work.close()
            raise Unavailable("The database is closed.")
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _write(self, function: Callable[[Tx], Awaitable[T]], *, single: bool) -> T:
        run = self._statement if single else self._transaction
        return await self._again(lambda: run(function))

    async def _read(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        return await self._again(lambda: self._statements(function))

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run it; again after a conflict, or when a connection turned out to be dead. Names what is left."""
        pauses = iter(PAUSES)
        while True:
            try:
                return await work()
            except ServiceError:
                raise
            except Exception as fault:
                pause = next(pauses, None)
                if pause is None or not (isinstance(fault, _CONFLICTS) or _was_dead(fault)):
                    if isinstance(fault, asyncpg.LockNotAvailableError):
                        raise LockTimeout("The database is busy.") from fault
                    if _is_away(fault):
                        raise Unavailable("The database cannot be used now.") from fault
                    raise
                log.info("transaction_again", reason=type(fault).__name__)
            await asyncio.sleep(pause * (1 + random.random()))  # noqa: S311 - it spreads, it hides nothing

    async def _transaction(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        connection = await self._acquired(self._writers)
        try:
            try:
                await connection.execute("BEGIN")
                result = await function(PostgresTx(connection, self._for_many))
            except BaseException as fault:
                await _roll_back(connection, fault)
                raise
            await _commit(connection)
        finally:
            await self._writers.release(connection)
        return result

    async def _statement(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        """It commits itself: whatever becomes of the connection meanwhile, its commit may have been."""
        connection = await self._acquired(self._writers)
        try:
            return await function(PostgresTx(connection, self._for_many))
        except asyncpg.QueryCanceledError:
            raise  # the server says so: it was rolled back
        except BaseException as fault:
            if not is_lost(fault):
                raise
            _drop(connection)
            raise CommitUnknown("The database was lost while it committed.") from fault
        finally:
            await self._writers.release(connection)

    async def _statements(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        connection = await self._acquired(self._readers)
        try:
            return await function(PostgresTx(connection, self._for_many))
        except BaseException as fault:
            if is_lost(fault):
                _drop(connection)
            raise
        finally:
            await self._readers.release(connection)

    async def _acquired(self, pool: Pool) -> Connection:
        try:
            return await pool.acquire(timeout=FREE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as fault:
            raise Unavailable("The database cannot be reached now.") from fault

    async def close(self) -> None:
        """Let what was given finish, then let go of the connections."""
        if self._closed:
            return
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSE_SECONDS)
        for pool in (self._writers, self._readers):
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()


async def _pool(options: dict[str, Any], size: int) -> Pool:
    return await asyncpg.create_pool(
        **options, min_size=0, max_size=size, max_inactive_connection_lifetime=60.0, reset=_keep_as_it_is
    )


async def _keep_as_it_is(_: Any) -> None:
    """Between two users of a connection nothing is to be reset: no transaction leaves anything behind."""


async def _roll_back(connection: Connection, fault: BaseException) -> None:
    if is_lost(fault):
        _drop(connection)
        return
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # noqa: BLE001 - the server rolls back what lost its connection
        _drop(connection)


def _drop(connection: Connection) -> None:
    """Let go of a connection that is in doubt; the pool may have found out itself, and taken it back."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _commit(connection: Connection) -> None:
    try:
        status = await connection.execute("COMMIT")
    except BaseException as fault:
        if not is_lost(fault):
            raise
        _drop(connection)
        raise CommitUnknown("The database was lost while it committed.") from fault
    if status != "COMMIT":
        raise RuntimeError("a transaction swallowed an error of its queries")


def _was_dead(fault: BaseException) -> bool:
    """Whether it was found out before anything could be committed that nobody is there; not for time-outs."""
    return is_lost(fault) and not isinstance(fault, TimeoutError | asyncpg.QueryCanceledError)


def _is_away(fault: Exception) -> bool:
    """Faults of the server or of the way to it; all others are faults of the code."""
    return isinstance(fault, _AWAY) or is_lost(fault)
