"""Two databases with the same in them, to do the same to both in two ways and compare every row."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.support.postgres import PostgresServer
from tests.support.rows import Pair, add_accounts, add_backend, need
from tests.support.schema import copied

from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.requirements import ensure_requirements
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.ids import LOCAL_ACCOUNT

NAMES: Final = (LOCAL_ACCOUNT, "Zoe", "acc", "äcc", "b")
MODELS: Final = ("one.safetensors", "two.safetensors", "three.safetensors")
NEEDS: Final = {need(model).id: need(model) for model in MODELS}


@asynccontextmanager
async def twins(postgres: PostgresServer) -> AsyncIterator[Pair]:
    """With these accounts and needs; one backend has the first two models, the other the second."""
    with copied(postgres) as one, copied(postgres) as two:
        engines = [await PostgresDatabase.open(url, application="tests", connections=2) for url in (one, two)]
        for db in engines:
            await db.write(lambda tx: accounts.ensure(tx, LOCAL, 0.0))
            await add_accounts(db, *NAMES[1:])
            await db.write(lambda tx: ensure_requirements(tx, NEEDS, 0.0))
            await add_backend(db, *MODELS[:2], backend_id="bck_1")
            await add_backend(db, *MODELS[1:2], backend_id="bck_2")
        yield engines[0], engines[1]
        for db in engines:
            await db.close()


async def contents(db: Database, tables: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """All rows of these tables, each with the order in which they are compared; entries of the outbox by their job,
    since numbers that were drawn in vain differ.
    """

    async def read(tx: Any) -> dict[str, list[dict[str, Any]]]:
        return {
            table: [dict(row) | {"id": row["job_id"]} if table == "outbox" else dict(row)
                    for row in await tx.all(f"SELECT * FROM {table} ORDER BY {order}")]
            for table, order in tables.items()
        }  # fmt: skip

    return await db.read(read)
