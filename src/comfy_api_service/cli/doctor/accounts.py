"""Accounts that nobody is asked for: as after a restore without the settings of before. Nothing is changed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comfy_api_service.cli.doctor.finding import Finding, warning
from comfy_api_service.cli.unused import UNUSED_REMEDY, unused_accounts
from comfy_api_service.db.problems import DatabaseUnusable

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

_COUNT: Final = "SELECT count(*) FROM accounts WHERE username IS NOT NULL"


async def unused(settings: "Settings") -> list[Finding]:
    """Of a service without authentication. Of a database that cannot be asked something else is told."""
    if settings.postgres_url is None:
        count = _in_file(settings.database_path)
    else:
        count = await _on_server(settings.postgres_url)
    return [warning("accounts", unused_accounts(count), UNUSED_REMEDY)] if count else []


def _in_file(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute(_COUNT).fetchone()[0])
    except sqlite3.Error:
        return 0


async def _on_server(url: str) -> int:
    import asyncpg  # noqa: PLC0415 - slow to load

    from comfy_api_service.db.connecting import connect  # noqa: PLC0415

    try:
        connection = await connect(url, application="comfy-api doctor")
        try:
            return int(await connection.fetchval(_COUNT))
        finally:
            await connection.close()
    except (DatabaseUnusable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return 0
