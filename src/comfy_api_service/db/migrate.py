"""Bring the schema up to date, at every start, under a lock. A schema from a newer version is refused."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comfy_api_service.db.problems import DatabaseUnusable

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import Connection

HEAD: Final = "0012"
"""The newest revision in migrations/versions; a test holds it to that. Knowing it spares every start but the
first the cost of loading the migration tool."""
KNOWN: Final = frozenset(f"{number:04}" for number in range(1, int(HEAD) + 1))
MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_KEY: Final = 0x63_75_69_6D
"""Of the advisory lock that PostgreSQL keeps while somebody migrates."""


class SchemaTooNew(Exception):
    """The database was written by a newer version of the service."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"The database is of a newer version (schema {revision}; this version knows up to {HEAD})."
        )
        self.revision = revision


def _is_current(revision: str | None) -> bool:
    if revision is not None and revision not in KNOWN:
        raise SchemaTooNew(revision)
    return revision == HEAD


# --- SQLite ----------------------------------------------------------------------------------------------


def revision_of(path: Path) -> str | None:
    """The schema's revision; None for an absent or empty database. Raises `sqlite3.Error` for a broken one."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as fault:
            if "no such table" in str(fault):
                return None
            raise
    return None if row is None else str(row[0])


def upgrade(path: Path) -> str:
    """Migrate the SQLite database at `path`; returns its revision. Raises `SchemaTooNew`."""
    with _locked(path.with_suffix(".migrate.lock")):
        if not _is_current(revision_of(path)):
            _run_on_file(path)
    return HEAD


def _run_on_file(path: Path) -> None:
    from sqlalchemy import create_engine  # noqa: PLC0415 - slow to load, and needed at the first start only

    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _run(connection)
            connection.commit()
    finally:
        engine.dispose()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process migrates at a time; the others wait."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- PostgreSQL ------------------------------------------------------------------------------------------


async def revision_on(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    """The schema's revision; None for an empty database."""
    import asyncpg  # noqa: PLC0415 - loaded where PostgreSQL is used

    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return None if revision is None else str(revision)


async def upgrade_server(url: str) -> str:
    """Migrate the PostgreSQL database; returns its revision. Raises `SchemaTooNew`, `DatabaseUnusable`."""
    from comfy_api_service.db.connecting import connect, problem_of  # noqa: PLC0415

    connection = await connect(url, application="comfy-api migrate", bounded=False)
    try:
        if not _is_current(await revision_on(connection)):
            await connection.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")  # gone with the connection
            if not _is_current(await revision_on(connection)):
                await _run_on_server(connection)
    except SchemaTooNew:
        raise
    except Exception as fault:
        raise DatabaseUnusable(problem_of(fault)) from fault
    finally:
        await connection.close()
    return HEAD


async def _run_on_server(locked: "asyncpg.Connection[asyncpg.Record]") -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    async def the_one() -> "asyncpg.Connection[asyncpg.Record]":
        return locked

    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=the_one)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


def _run(connection: "Connection") -> None:
    from alembic import command  # noqa: PLC0415 - slow to load, and needed at the first start only
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
