"""Connections to PostgreSQL: how they are set up, and what can be wrong with them, named with a remedy.

No message contains the address, which may carry a password.
"""

import socket
from asyncio import AbstractEventLoop
from typing import Any, Final

import asyncpg

from comfy_api_service.db.problems import DatabaseUnusable, Problem

CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
"""The longest that a statement may take before its caller is told that the database is away; the server gives
up a second before.
"""
IDLE_SECONDS: Final = 5.0
"""How long a process that stopped in mid-transaction keeps its locks."""
LOCK_SECONDS: Final = 6.0
"""How long to wait for a lock; longer than whoever holds it may be idle."""
MIGRATION_SECONDS: Final = 120.0
OLDEST: Final = 14
"""The oldest major version that this service is meant for."""
_KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 2),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 11_000),
)
_NAME_BYTES: Final = 63

_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, a statement's time is over
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def is_lost(fault: BaseException) -> bool:
    """Whether the connection, or what it was asked, is gone; not if the client library refused an argument."""
    return isinstance(fault, _LOST) and not isinstance(
        fault, asyncpg.DataError | asyncpg.ClientConfigurationError
    )


class _Connection(asyncpg.Connection):
    """A connection whose other end is missed within seconds, also when it vanished without a word."""

    def __init__(self, protocol: Any, transport: Any, loop: AbstractEventLoop, *more: Any) -> None:
        super().__init__(protocol, transport, loop, *more)
        found = transport.get_extra_info("socket")
        if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
            return
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # not every system has all of them
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def options(url: str, *, application: str, read_only: bool = False, bounded: bool = True) -> dict[str, Any]:
    """What `asyncpg.connect` and `asyncpg.create_pool` are given. `application` is shown by the server beside
    each connection. `bounded`: nothing may take long; else it may take `MIGRATION_SECONDS`.
    """
    settings = {
        "application_name": application.encode()[:_NAME_BYTES].decode(errors="ignore"),
        "statement_timeout": f"{STATEMENT_SECONDS - 1 if bounded else MIGRATION_SECONDS:g}s",
        "lock_timeout": f"{LOCK_SECONDS if bounded else MIGRATION_SECONDS:g}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS if bounded else MIGRATION_SECONDS:g}s",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "on" if read_only else "off",
        "jit": "off",  # it takes longer than any statement of this service
    }
    return {
        "dsn": url,
        "timeout": CONNECT_SECONDS,
        "command_timeout": STATEMENT_SECONDS if bounded else None,
        "connection_class": _Connection,
        "max_cached_statement_lifetime": 0,
        "statement_cache_size": 256,
        "server_settings": settings,
    }


async def connect(
    url: str, *, application: str, bounded: bool = True
) -> "asyncpg.Connection[asyncpg.Record]":
    """One connection. Raises `DatabaseUnusable`."""
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            **options(url, application=application, bounded=bounded)
        )
    except Exception as fault:
        raise DatabaseUnusable(problem_of(fault)) from fault
    version = connection.get_server_version().major
    if version < OLDEST:
        await connection.close()
        raise DatabaseUnusable(
            Problem(f"PostgreSQL {version} is too old", f"Use PostgreSQL {OLDEST} or newer.")
        )
    return connection


_WHERE: Final = "Correct DATABASE_URL, or start PostgreSQL where it points to."
_PROBLEMS: Final[tuple[tuple[type[BaseException], Problem], ...]] = (
    (
        asyncpg.InvalidAuthorizationSpecificationError,  # a wrong password too
        Problem(
            "PostgreSQL refuses the user or the password",
            "Correct user and password in DATABASE_URL, or let the user in (pg_hba.conf).",
        ),
    ),
    (
        asyncpg.InvalidCatalogNameError,
        Problem(
            "PostgreSQL answers, but has no database of that name",
            "Create it (`createdb NAME`), or correct the name at the end of DATABASE_URL.",
        ),
    ),
    (
        asyncpg.InsufficientPrivilegeError,
        Problem(
            "the user may not create or use the tables",
            "Make the user the owner of the database (`ALTER DATABASE NAME OWNER TO USER`).",
        ),
    ),
    (
        asyncpg.TooManyConnectionsError,
        Problem(
            "PostgreSQL has no free connection",
            "Raise max_connections there, or lower DATABASE_POOL_SIZE here.",
        ),
    ),
    (
        asyncpg.CannotConnectNowError,
        Problem("PostgreSQL is starting up or shutting down", "Try again in some seconds."),
    ),
    (
        asyncpg.LockNotAvailableError,
        Problem(
            "another process keeps it locked",
            "Look in pg_stat_activity for one that migrates, and try again.",
        ),
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        Problem("the server takes no writes: it is a standby", "Let DATABASE_URL point to the primary."),
    ),
    (socket.gaierror, Problem("its host name is not known", "Correct the host in DATABASE_URL.")),
    (ConnectionRefusedError, Problem("nothing listens there: connection refused", _WHERE)),
    (
        TimeoutError,
        Problem(
            f"no answer within {CONNECT_SECONDS:g} s",
            "Check whether PostgreSQL hangs, and whether a firewall stands between.",
        ),
    ),
)


def problem_of(fault: BaseException) -> Problem:
    """What an error of connecting, or of a first statement, means."""
    for kind, problem in _PROBLEMS:
        if isinstance(fault, kind):
            return problem
    if isinstance(fault, OSError) and fault.strerror:
        return Problem(f"the connection fails: {fault.strerror.lower()}", _WHERE)
    return Problem(f"it cannot be used ({type(fault).__name__})", _WHERE)
