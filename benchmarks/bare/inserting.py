"""The least that could be called durable: bare FastAPI, and one INSERT into one table for all who wait.

No lane, event, outbox, ledger or check of the request against an inventory: no service can be expected to be faster.

`python -m benchmarks.bare.inserting PORT DATABASE_URL`
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import uvicorn
from fastapi import FastAPI, Header

from benchmarks.servers import HOST
from comfy_api_service.api.schemas.submission import JobRequest

_TABLE = "CREATE TABLE least (id text PRIMARY KEY, params text NOT NULL, key text NOT NULL UNIQUE)"
_INSERT = "INSERT INTO least (id, params, key) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])"


class Inserting:
    """Writes what arrived while the last group was written."""

    def __init__(self) -> None:
        self._arrived: list[tuple[tuple[str, str, str], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def open(self, url: str) -> None:
        self._connection = await asyncpg.connect(url)
        await self._connection.execute(_TABLE)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def add(self, *row: str) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived.append(((row[0], row[1], row[2]), done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        if self._connection is None:
            raise RuntimeError("not open")
        while self._arrived:
            group, self._arrived = self._arrived, []
            await self._connection.execute(_INSERT, *map(list, zip(*[row for row, _ in group], strict=True)))
            for _, done in group:
                done.set_result(None)
            await asyncio.sleep(0)
        self._writing = None


inserting = Inserting()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await inserting.open(sys.argv[2])
    yield
    await inserting.close()


app = FastAPI(openapi_url=None, lifespan=lifespan)


@app.get("/ping")
async def ping() -> dict[str, bool]:
    return {"ok": True}


@app.post("/api/v1/jobs", status_code=202)
async def submit(body: JobRequest, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    job_id = uuid.uuid4().hex
    await inserting.add(job_id, body.model_dump_json(), idempotency_key)
    return {"job_id": job_id}


if __name__ == "__main__":
    uvicorn.run(
        app,
        host=HOST,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
