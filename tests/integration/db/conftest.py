from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.schema import lay

from comfy_api_service.db import accounts
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.domain.account import LOCAL


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(lay(tmp_path))
    await database.write(lambda tx: accounts.ensure(tx, LOCAL, 0.0))
    yield database
    await database.close()
