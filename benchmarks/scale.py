"""Scale: submit and claim, lists and statistics with 1 000 000 jobs of 10 000 accounts queued, against 1 000 jobs.

On SQLite and on PostgreSQL; each account used the service on each of the last 30 days. Submissions and claims are
measured at the database, in turns on both queues: what else they cost does not know how long the queue is. Each round
puts in what it takes out.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks import backlog, client
from benchmarks.backlog import new_job
from benchmarks.harness import Check, Options, in_turns, median, ms, percentile, say
from benchmarks.servers import HOST, SETTINGS, Server, api, free_port, serve_command, started
from benchmarks.stores import postgres
from comfy_api_service.db import claims, counters, transitions
from comfy_api_service.db.base import Database
from comfy_api_service.db.claims import Claimant, Claimed
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.migrate import upgrade
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.ids import new_prompt_id
from comfy_api_service.domain.job import State
from comfy_api_service.services.overview import DAYS

BOUND: Final = 1.3
MOST_SECONDS: Final = 0.05
JOBS: Final = 1_000_000
ACCOUNTS: Final = 10_000
FEW: Final = 1_000
FEW_ACCOUNTS: Final = 100
"""More than a claim looks at, as with 10 000: what differs is the length of the queue."""
MINE: Final = 50_000
"""Of all the jobs, those of the account that lists its own."""
PAST_DAYS: Final = DAYS - 1
WAITING_DAYS: Final = 4
"""Of those, on which jobs were submitted that still wait: a queue so long is of more than one day."""
MODELS: Final = tuple(f"model-{number}.safetensors" for number in range(8))
WARM_UP: Final = 50
PATHS: Final = (
    "/api/v1/jobs",
    "/api/v1/jobs?limit=100",
    "/api/v1/jobs?status=running",
    "/api/v1/jobs?label=kind:none",
    "/health",
    "/health/ready",
    "/metrics",
    "/models",
    "/api/v1/usage",
    "/admin/stats",
    "/admin/jobs",
    "/admin/jobs?limit=100",
    "/admin/jobs?status=queued",
    "/admin/jobs?status=running",
    "/admin/jobs?status=succeeded",
    "/admin/jobs?status=failed",
    "/admin/jobs?user_id=acc_local",
    "/admin/users",
    "/admin/users?search=nobody",
    "/admin/api-keys",
    "/admin/backends",
    "/admin/audit",
)
"""Without authentication the caller is an administrator."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A filled database."""

    db: Database
    claimant: Claimant
    submissions: Submissions
    accounts: int


Opened = tuple[Queue, Queue, Callable[[], AbstractAsyncContextManager[Server]]]
"""Few jobs, many, and the service over the many."""


async def run(options: Options) -> list[Check]:
    checks: list[Check] = []
    for kind, opened in (("SQLite", _on_sqlite), ("PostgreSQL", _on_postgres)):
        async with opened(options) as (few, many, serving):
            checks += await _latencies(options, kind, few, many)
            async with serving() as server:
                checks.append(await _statistics(options, kind, many, server))
    return checks


async def _latencies(options: Options, kind: str, few: Queue, many: Queue) -> list[Check]:
    rounds, each = options.choose(9, 3), options.choose(200, 150)

    async def one(queue: Queue, name: str, number: int) -> tuple[float, float]:
        submits, taken = await _round(queue, each)
        say(
            f"scale: {kind}, round {number + 1}, {name}: submit p50 {ms(median(submits))}, "
            f"p99 {ms(percentile(submits, 99))}; claim p50 {ms(median(taken))}, p99 {ms(percentile(taken, 99))}"
        )
        return percentile(submits, 99), percentile(taken, 99)

    for queue in (few, many):
        await _round(queue, WARM_UP)
    small, big = await in_turns(
        rounds,
        lambda number: one(few, f"{FEW} jobs", number),
        lambda number: one(many, f"{_jobs(options)} jobs", number),
    )
    return [
        Check(
            f"{what}, p99 with {_jobs(options):,} jobs, {kind}".replace(",", " ", 1),
            median([late[index] for late in big]) / median([late[index] for late in small]),
            BOUND,
            f"{ms(median([late[index] for late in big]))}, with {FEW} {ms(median([late[index] for late in small]))}",
        )
        for index, what in enumerate(("submit", "claim"))
    ]


async def _round(queue: Queue, count: int) -> tuple[list[float], list[float]]:
    """Seconds of so many submissions and as many claims, one at a time and in turns; what was claimed ends."""
    submits, taken = [], []
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            job = new_job(
                account=f"acc_{number * 37 % queue.accounts:05d}", model=MODELS[number % len(MODELS)]
            )
            began = time.perf_counter()
            await queue.submissions.add(job)
            submits.append(time.perf_counter() - began)
            began = time.perf_counter()
            claimed = await claims.next_job(
                queue.db, queue.claimant, prompt_id=new_prompt_id(), now=time.time()
            )
            taken.append(time.perf_counter() - began)
            if not isinstance(claimed, Claimed):
                raise TypeError(f"a claim came back with {claimed}")
            await _ends(queue.db, claimed)
    finally:
        gc.enable()
    return submits, taken


async def _ends(db: Database, claimed: Claimed) -> None:
    now = time.time()
    ending = Ending(State.SUCCEEDED, backend_seconds=1.0, produced=1)
    await db.write(lambda tx: transitions.finish(tx, claimed.fence, ending, now=now))


async def _statistics(options: Options, kind: str, many: Queue, server: Server) -> Check:
    """The slowest median of what is asked of the whole queue."""
    rounds = options.choose(15, 5)
    found: dict[str, float] = {}

    async def timed(name: str, ask: Callable[[], Awaitable[object]]) -> None:
        taken = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            await ask()
            taken.append(time.perf_counter() - began)
        found[name] = median(taken[1:])
        say(f"scale: {kind}, {name}: {ms(found[name])}")

    await timed("counters of the pool", lambda: many.db.read(counters.load))
    await timed("open work", lambda: many.db.read(lambda tx: counters.open_seconds(tx, time.time())))
    async with client.connected(server.url) as one:
        for path in PATHS:
            await timed(f"GET {path}", partial(one.fetch, path))
    slowest = max(found, key=lambda name: found[name])
    return Check(
        f"lists and statistics there, {kind}",
        found[slowest] * 1000,
        MOST_SECONDS * 1000,
        f"the slowest of {len(found)}: {slowest}",
        unit="ms",
    )


def _jobs(options: Options) -> int:
    return options.choose(JOBS, JOBS // 10)


async def _fill(options: Options, kind: str, few: Database, many: Database) -> tuple[Queue, Queue]:
    inventory = backlog.inventory_with(MODELS)
    queues = []
    for db, jobs, accounts in ((few, FEW, FEW_ACCOUNTS), (many, _jobs(options), ACCOUNTS)):
        claimant = await backlog.add_backend(db, inventory)
        await backlog.add_accounts(db, {LOCAL.id: 1.0})
        await backlog.add_crowd(db, accounts)
        mine = MINE * jobs // JOBS
        await backlog.copy(db, [new_job(account=LOCAL.id, model=MODELS[0])], mine)
        await backlog.copy(
            db, [new_job(account="acc_00000", model=model) for model in MODELS], jobs - mine, crowd=accounts
        )
        await backlog.add_past(db, accounts, PAST_DAYS, waiting=WAITING_DAYS)
        await backlog.known(db, {"all": 1.0})
        submissions = Submissions(db, queue_limit=backlog.NO_LIMIT, far_from_limit=lambda: True)
        queues.append(Queue(db, claimant, submissions, accounts))
        say(f"scale: {kind}, {jobs} jobs of {accounts} accounts wait")
    return queues[0], queues[1]


@asynccontextmanager
async def _on_sqlite(options: Options) -> AsyncIterator[Opened]:
    folder = options.folder / "scale"
    async with AsyncExitStack() as stack:
        opened = []
        for name in ("few", "many"):
            path = folder / name / "comfy-api.sqlite3"
            path.parent.mkdir(parents=True)
            await asyncio.to_thread(upgrade, path)
            opened.append(SqliteDatabase(path))
            stack.push_async_callback(opened[-1].close)
        few, many = await _fill(options, "SQLite", *opened)
        port = free_port()
        command = serve_command(port, folder / "many", f"http://{HOST}:{free_port()}")
        yield (
            few,
            many,
            partial(started, command, folder=folder, port=port, ready="/ping", environment=SETTINGS),
        )


@asynccontextmanager
async def _on_postgres(options: Options) -> AsyncIterator[Opened]:
    folder = options.folder / "scale"
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(postgres())
        opened = []
        for name in ("few", "many"):
            url = await server.database(name)
            opened.append(await PostgresDatabase.open(url, application="benchmark", connections=4))
            stack.push_async_callback(opened[-1].close)
        few, many = await _fill(options, "PostgreSQL", *opened)
        for name in ("few", "many"):
            await server.execute(name, "VACUUM ANALYZE")  # as autovacuum does, at some moment of its own
        await server.execute("postgres", "CHECKPOINT")
        yield few, many, partial(api, folder, DATABASE_URL=server.url("many"))
