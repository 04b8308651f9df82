"""A database of its own with a worker for it, from when it is told to begin: what waits is there before."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import backlog
from benchmarks.servers import Server, worker
from benchmarks.stores import Postgres
from comfy_api_service.db.base import Database
from comfy_api_service.db.postgres import PostgresDatabase


@asynccontextmanager
async def driven(
    folder: Path, server: Postgres, servers: Sequence[Server], name: str, *, measured: Mapping[str, float]
) -> AsyncIterator[tuple[Database, asyncio.Event]]:
    """The database, and the event that starts `comfy-api worker`; `measured`: durations that it knows by then."""
    url, starting = await server.database(name), asyncio.Event()
    db = await PostgresDatabase.open(url, application="benchmark", connections=4)

    async def drive() -> None:
        await starting.wait()
        async with worker(folder / name, [one.url for one in servers], DATABASE_URL=url):
            await asyncio.Event().wait()

    driving = asyncio.create_task(drive())
    try:
        await backlog.known(db, measured)
        yield db, starting
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
        await db.close()
