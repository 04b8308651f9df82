"""Counting: what one job costs the servers that all processes share, with a full queue and at 0.8 of capacity.

One `comfy-api api` and one `comfy-api worker` over PostgreSQL and Valkey, results on disk. With a full queue jobs come
in groups and every claim finds one. At 0.8 each is submitted alone, and wakes every backend that has room: what a job
costs then grows with the number of backends. What the same processes cost while nothing waits is measured first, and
told by itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import redis.asyncio

from benchmarks import client
from benchmarks.fleet import backends
from benchmarks.harness import Check, Options, say
from benchmarks.servers import Server, api, cpu_seconds, inventory_known, worker
from benchmarks.stores import Postgres, postgres, valkey

BACKENDS: Final = 8
JOB_SECONDS: Final = 0.5
LOAD: Final = 0.8
OPEN: Final = "SELECT 1 FROM jobs WHERE state IN ('ready', 'dispatched', 'executing', 'storing') LIMIT 1"
STATISTICS_SECONDS: Final = 11.0
"""An idle connection of PostgreSQL tells what it did after 10 seconds."""


@dataclass(frozen=True, slots=True)
class Count:
    """What was done so far; times are seconds."""

    at: float
    commits: int
    statements: int
    log_bytes: int
    stored_bytes: int
    database_cpu: float
    commands: int
    redis_bytes: int
    api_cpu: float
    worker_cpu: float

    def since(self, before: "Count") -> dict[str, float]:
        return {name: getattr(self, name) - getattr(before, name) for name in self.__slots__}


async def run(options: Options) -> list[Check]:
    jobs = options.choose(400, 120)
    folder = options.folder / "counting"
    async with (
        postgres(shared_preload_libraries="pg_stat_statements") as database,
        valkey(folder / "valkey") as redis_url,
        backends(folder / "backends", BACKENDS, seconds_per_prompt=JOB_SECONDS) as servers,
    ):
        url = await database.database("counting")
        await database.execute("counting", "CREATE EXTENSION pg_stat_statements")
        shared = {"DATABASE_URL": url, "REDIS_URL": redis_url}
        async with (
            api(folder, **shared) as door,
            worker(folder, [one.url for one in servers], **shared) as driving,
            client.connected(door.url) as caller,
        ):

            async def counted(name: str, load: Callable[[], Awaitable[object]], by: int) -> dict[str, float]:
                """All that was done from the first submission to the last end, with the pauses around it."""
                before = await _count(database, redis_url, door, driving)
                await load()
                await until_done(url)
                await asyncio.sleep(STATISTICS_SECONDS)
                used = (await _count(database, redis_url, door, driving)).since(before)
                for what in idle:
                    used[what] -= idle[what] * STATISTICS_SECONDS
                say(f"counting: {name}: " + _told(used, by))
                return {what: value / by for what, value in used.items()}

            async def alone() -> None:
                for _ in range(jobs):
                    await caller.submit()
                    await asyncio.sleep(JOB_SECONDS / BACKENDS / LOAD)

            await inventory_known(door)
            await caller.submit_many(2 * BACKENDS)
            await until_done(url)
            await asyncio.sleep(STATISTICS_SECONDS)
            begin = await _count(database, redis_url, door, driving)
            await asyncio.sleep(STATISTICS_SECONDS)
            idle = (await _count(database, redis_url, door, driving)).since(begin)
            seconds = idle["at"]
            idle = {what: value / seconds for what, value in idle.items()}
            say("counting: a second without jobs: " + _told(idle, 1))
            full = await counted("a job of a full queue", lambda: caller.submit_many(jobs), jobs)
            single = await counted(f"a job at {LOAD} of capacity", alone, jobs)
    return [
        Check("transactions a job, queue full", full["commits"], 12, f"{jobs} jobs", unit=""),
        Check("statements a job, queue full", full["statements"], 15, f"{jobs} jobs", unit=""),
        Check("commands to Redis a job, queue full", full["commands"], 12, f"{jobs} jobs", unit=""),
        Check(
            f"transactions a job at {LOAD} of capacity, for each backend",
            (single["commits"] - full["commits"]) / BACKENDS,
            2,
            f"{jobs} jobs, {BACKENDS} backends",
            unit="",
        ),
    ]


async def until_done(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(client.WAIT_SECONDS):
            while await connection.fetchval(OPEN):  # noqa: ASYNC110 - another process ends them
                await asyncio.sleep(0.25)
    finally:
        await connection.close()


async def _count(database: Postgres, redis_url: str, door: Server, driving: Server) -> Count:
    connection = await asyncpg.connect(database.url("counting"))
    try:
        [row] = await connection.fetch(
            """SELECT xact_commit + xact_rollback AS commits,
                 (SELECT sum(calls) FROM pg_stat_statements s
                  WHERE s.dbid = d.datid AND query !~* '^(begin|commit|rollback|set|show)') AS statements,
                 pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS log_bytes,
                 pg_database_size(d.datid) AS stored_bytes
               FROM pg_stat_database d WHERE datname = 'counting'"""
        )
    finally:
        await connection.close()
    server: Any = redis.asyncio.from_url(redis_url)
    try:
        told = await server.info()
    finally:
        await server.aclose()
    return Count(
        at=time.monotonic(),
        commits=int(row["commits"]),
        statements=int(row["statements"]),
        log_bytes=int(row["log_bytes"]),
        stored_bytes=int(row["stored_bytes"]),
        database_cpu=cpu_seconds(database.process.pid),
        commands=told["total_commands_processed"],
        redis_bytes=told["total_net_input_bytes"] + told["total_net_output_bytes"],
        api_cpu=door.cpu_seconds(),
        worker_cpu=driving.cpu_seconds(),
    )


def _told(used: dict[str, float], by: float) -> str:
    each = {name: value / by for name, value in used.items()}
    kilobytes = {name: each[name] / 1000 for name in ("log_bytes", "stored_bytes", "redis_bytes")}
    millis = {name: each[name] * 1000 for name in ("database_cpu", "api_cpu", "worker_cpu")}
    return (
        f"{each['commits']:.1f} transactions, {each['statements']:.1f} statements, "
        f"{kilobytes['log_bytes']:.1f} kB of log, {kilobytes['stored_bytes']:.1f} kB stored, "
        f"{millis['database_cpu']:.2f} ms of PostgreSQL; "
        f"{each['commands']:.1f} commands and {kilobytes['redis_bytes']:.1f} kB of Redis; "
        f"{millis['api_cpu']:.2f} ms of the API, {millis['worker_cpu']:.2f} ms of the worker"
    )
