from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer
from tests.support.rows import Pair
from tests.support.schema import bound, copied, lay, url_of
from tests.support.twins import twins as same_twice

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


@pytest.fixture(params=[False, True], ids=["by steps", "by call"])
def far(request: pytest.FixtureRequest) -> bool:
    """Whether submissions are far from the queue's limit: then common groups are written by one call, where the
    server can, to the same effect.
    """
    return bool(request.param)


@pytest.fixture
async def both(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two engines, as two processes would have them; the checker finds their database by the folder."""
    with copied(postgres) as url, bound(tmp_path, url):
        async with AsyncExitStack() as stack:
            engines = []
            for _ in range(2):
                engines.append(await PostgresDatabase.open(url, application="tests", connections=8))
                stack.push_async_callback(engines[-1].close)
            await engines[0].write(lambda tx: accounts.ensure(tx, LOCAL, 0.0))
            yield engines[0], engines[1]


@pytest.fixture
async def twins(postgres: PostgresServer) -> AsyncIterator[Pair]:
    """Two databases with the same in them."""
    async with same_twice(postgres) as pair:
        yield pair


async def opened(folder: Path) -> SqliteDatabase | PostgresDatabase:
    url = url_of(folder)
    if url is None:
        return SqliteDatabase(lay(folder))
    return await PostgresDatabase.open(url, application="tests", connections=6)
