from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.schema import lay, url_of

from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.domain.account import LOCAL


@pytest.fixture
async def db(tmp_path: Path, dialect: str) -> AsyncIterator[Database]:
    database = await opened(tmp_path)
    assert database.dialect.name == dialect
    await database.write(lambda tx: accounts.ensure(tx, LOCAL, 0.0))
    yield database
    await database.close()


async def opened(folder: Path) -> SqliteDatabase | PostgresDatabase:
    url = url_of(folder)
    if url is None:
        return SqliteDatabase(lay(folder))
    return await PostgresDatabase.open(url, application="tests", connections=6)
