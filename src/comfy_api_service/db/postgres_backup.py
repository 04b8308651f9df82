"""Copies of a PostgreSQL database by its own tools, pg_dump and pg_restore, which stand on PATH.

The password goes to them in the environment: what stands on a command line is read by everybody on the machine.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from comfy_api_service.db import kept
from comfy_api_service.db.base import Reader
from comfy_api_service.db.connecting import connect, problem_of
from comfy_api_service.db.migrate import revision_on
from comfy_api_service.db.postgres import PostgresTx
from comfy_api_service.db.problems import DatabaseUnusable
from comfy_api_service.domain.backup import BackupRefused, Engine, Told

if TYPE_CHECKING:
    import asyncpg

LOOK_SECONDS: Final = 0.2
"""Between two looks at how much a tool has written."""
ASIDE: Final = "replaced_"
"""Schemas with what a restore found begin so; no backup takes them along."""
_TABLES: Final = """SELECT c.relname AS name FROM pg_class c
  WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    AND c.relkind IN ('r', 'p') ORDER BY c.relname"""
_FUNCTIONS: Final = """SELECT CAST(p.oid AS regprocedure)::text AS name FROM pg_proc p
  WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') ORDER BY name"""
"""Those of extensions stay where they are."""


class PostgresBacked:
    """The database at `url`."""

    engine: Engine = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url

    async def revision(self) -> str | None:
        async with self._connected() as connection:
            return await revision_on(connection)

    @asynccontextmanager
    async def copied(self, to: Path, told: Told) -> AsyncGenerator[Reader]:
        async with self._connected() as connection, _one_moment(connection) as snapshot:
            exclude = f"--exclude-schema={ASIDE}*"
            plain = ("--format=custom", "--no-owner", "--no-privileges", "--no-password")
            await self._tool(
                "pg_dump", *plain, exclude, f"--snapshot={snapshot}", f"--file={to}", writes=to, told=told
            )
            yield _tx(connection)

    async def is_kept(self, key: str, revision: str) -> bool:
        async with self._connected() as connection:
            return await kept.is_kept(_tx(connection), key, revision)

    async def is_empty(self) -> bool:
        _found("pg_restore")
        async with self._connected() as connection:
            busy = await connection.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND application_name LIKE 'comfy-api %' AND pid <> pg_backend_pid()"""
            )
            if busy:
                raise BackupRefused(
                    f"Processes of the service are connected to this database ({busy} connections).",
                    "Stop every API process and worker first.",
                )
            return not await connection.fetch(_TABLES)

    async def set_aside(self, stamp: str) -> str:
        schema = f"{ASIDE}{re.sub(r'[^a-z0-9]', '', stamp.lower())}"
        async with self._connected() as connection, connection.transaction():
            home = await connection.fetchval("SELECT current_schema()")
            await connection.execute(f"CREATE SCHEMA {schema}")
            await _move(connection, home, schema)
        return f"the schema {schema} of the database"

    async def restore(self, copy: Path, told: Told) -> None:
        told("database", 0, None)
        await self._tool(
            "pg_restore",
            "--single-transaction",  # all of it or nothing
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
            "--no-password",
            str(copy),
        )
        async with self._connected() as connection:
            await connection.execute("ANALYZE")

    @asynccontextmanager
    async def _connected(self) -> "AsyncGenerator[asyncpg.Connection[asyncpg.Record]]":
        import asyncpg  # noqa: PLC0415

        connection = await connect(self._url, application="comfy-api-backup", bounded=False)
        try:
            yield connection
        except asyncpg.PostgresError as fault:
            raise DatabaseUnusable(problem_of(fault)) from fault
        finally:
            with contextlib.suppress(Exception):  # it may be gone, with the fault that is told
                await connection.close()

    async def _tool(
        self, name: str, *arguments: str, writes: Path | None = None, told: Told | None = None
    ) -> None:
        """Run it to its end; it ends with whoever waits for it."""
        url, environment = _without_password(self._url)
        process = await asyncio.create_subprocess_exec(
            _found(name),
            f"--dbname={url}",
            *arguments,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        ended = asyncio.create_task(process.communicate())
        try:
            while not (await asyncio.wait({ended}, timeout=LOOK_SECONDS))[0]:
                if writes is not None and told is not None:
                    told("database", _size(writes), None)
        finally:
            if process.returncode is None:
                process.kill()
                await ended
        if process.returncode:
            said = (await ended)[1].decode(errors="replace")
            raise BackupRefused(f"{name} failed: {_first_error(said)}", _remedy(said))


@asynccontextmanager
async def _one_moment(connection: Any) -> AsyncGenerator[str]:
    """A transaction that sees one moment; its name, by which others see the same."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield await connection.fetchval("SELECT pg_export_snapshot()")


def _tx(connection: Any) -> PostgresTx:
    """One of its own, where others come from a pool."""
    return PostgresTx(connection, {})


async def _move(connection: Any, source: str, to: str) -> None:
    """All tables of one schema to another, with their indexes and sequences, and the functions."""
    for row in await connection.fetch(_TABLES):
        table = str(row["name"]).replace('"', '""')
        await connection.execute(f'ALTER TABLE "{source}"."{table}" SET SCHEMA "{to}"')
    for row in await connection.fetch(_FUNCTIONS):
        await connection.execute(f'ALTER FUNCTION {row["name"]} SET SCHEMA "{to}"')


def _found(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise BackupRefused(
            f"{tool} is not on PATH.",
            "Install PostgreSQL's client programs, of the server's version or newer; docs/BACKUP.md has a way without.",
        )
    return path


def _without_password(url: str) -> tuple[str, dict[str, str]]:
    """The address without its password, and the environment that has it."""
    parsed = urlsplit(url)
    environment = {}
    login, at, hosts = parsed.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if password:
        environment["PGPASSWORD"] = unquote(password)
    query = []
    for name, value in parse_qsl(parsed.query, keep_blank_values=True):
        if name == "password":
            environment["PGPASSWORD"] = value
        else:
            query.append((name, value))
    bare = parsed._replace(netloc=f"{user}{at}{hosts}", query=urlencode(query))
    return urlunsplit(bare), environment


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _first_error(said: str) -> str:
    lines = [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]
    return lines[0] if lines else (said.strip().splitlines() or ["it says nothing"])[-1]


def _remedy(said: str) -> str:
    if "version mismatch" in said or "unsupported version" in said:
        return "Use pg_dump and pg_restore of the server's version or newer, first on PATH."
    if "already exists" in said:
        return "Use an empty database (`createdb NAME`), or --force."
    return ""
