"""Jobs straight in the database: by the service's own door one by one, or hundreds of thousands by SQL.

Rows by SQL are copies of a job that came through the door, each with a seed of its own; counters are set from
what they count, and checked.
"""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import orjson

from benchmarks.bare import protocol
from benchmarks.bare.protocol import MODEL
from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.db import accounts, backends, counters, lanes, tables, timings, workers
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.claims import Claimant
from comfy_api_service.db.insertion import insert
from comfy_api_service.db.requirements import store_inventory
from comfy_api_service.domain.account import LOCAL, Account
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.compilation import timing_key
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.generation_request import GenerationRequest
from comfy_api_service.domain.graph import requirement_of
from comfy_api_service.domain.ids import new_job_id
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.params import params_of
from comfy_api_service.domain.submission import JobOptions, NewJob
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.domain.times import utc_day
from comfy_api_service.simulator.inventory import Inventory as Simulated
from comfy_api_service.simulator.settings import SimulatorSettings

CHUNK: Final = 50_000
"""Rows of one transaction: it ends within the service's time for a statement."""
NO_LIMIT: Final = 10**9
DAY: Final = 86_400.0
_seeds: Final = itertools.count(10**15)
_calls: Final = itertools.count(1)


def new_job(
    *, account: str = LOCAL.id, model: str = MODEL, cost: float = 1.0, steps: int = protocol.STEPS
) -> NewJob:
    """A job as a submission makes it, with a seed that no other has."""
    seed = next(_seeds)
    request = GenerationRequest(
        "a lighthouse at dawn",
        model=model,
        width=protocol.WIDTH,
        height=protocol.WIDTH,
        steps=steps,
        seed=seed,
    )
    graph = protocol.graph(seed, model=model, steps=steps)
    return NewJob(
        id=new_job_id(),
        account_id=account,
        requirement=requirement_of(graph),
        graph=graph,
        params=params_of(request),
        options=JobOptions(),
        images=1,
        cost=cost,
        timing_key=timing_key(request),
        queued_at=time.time(),
        fingerprint=f"{seed:032x}",
        idempotency_key=f"key-{seed}",
    )


async def put(db: Database, *jobs: NewJob) -> None:
    await db.write(lambda tx: insert(tx, jobs, queue_limit=NO_LIMIT, far_from_limit=True))


async def add_accounts(db: Database, weights: Mapping[str, float]) -> None:
    """Accounts with these weights, and no job."""

    async def write(tx: Tx) -> None:
        for name, weight in weights.items():
            await accounts.ensure(tx, Account(name, name, "free", limits=Limits(weight=weight)), time.time())

    await db.write(write)


async def known(db: Database, measured: Mapping[str, float]) -> None:
    """Durations, as a service that has run for a while has measured them."""
    await db.write(lambda tx: tx.together(timings.learned(measured, time.time())))


async def add_backend(db: Database, inventory: Inventory) -> Claimant:
    """A backend that is online with this inventory, and who claims for it."""

    async def write(tx: Tx) -> None:
        await workers.register(
            tx, "wrk_bench", node_id="node", scope=["bck_bench"], now=time.time(), alone=False
        )
        await backends.enroll(
            tx, {"bck_bench": "http://bench"}, node_id="node", now=time.time(), names=["bench"]
        )
        await backends.take(tx, "bck_bench", "wrk_bench")
        await store_inventory(tx, inventory, time.time())
        await lanes.admit(tx, "bck_bench", inventory.hash)
        await backends.describe(
            tx, "bck_bench", worker_id="wrk_bench", state=BackendState.ONLINE, now=time.time(),
            inventory_hash=inventory.hash,
        )  # fmt: skip

    await db.write(write)
    return Claimant("bck_bench", "wrk_bench", "client", inventory.hash)


def inventory_with(models: Iterable[str]) -> Inventory:
    """What a simulated server with these checkpoints tells of itself."""
    settings = SimulatorSettings(models={"checkpoints": tuple(models)})
    return parse(orjson.loads(Simulated(settings, []).object_info()))


# --- many ------------------------------------------------------------------------------------------------


async def add_crowd(db: Database, count: int) -> None:
    """Accounts of weight 1, `acc_00000` and so on, none of them new, with virtual times spread over a window; each is
    a person's who has a key.
    """
    numbers, name = _numbers(db, 0, count), _crowd_name(db, "n")

    async def write(tx: Tx) -> None:
        await tx.run(
            f"""INSERT INTO accounts (id, name, tier, created_at, email, username, overrides)
                SELECT {name}, {name}, 'enterprise', 0, {name} || '@example.com', {name}, '{{"weight": 1.0}}'
                FROM {numbers}"""
        )
        await tx.run(
            f"""INSERT INTO api_keys (id, account_id, name, digest, scopes, created_at)
                SELECT 'key_' || {name}, {name}, 'key', {name}, '{Scope.WRITE}', 0 FROM {numbers}"""
        )
        await tx.run(
            f"""INSERT INTO lanes (account_id, weight, vtime, served)
                SELECT {name}, 1, (n * 7919 % 1000) / 50.0, 1 FROM {numbers}"""
        )

    await db.write(write)


async def add_past(db: Database, count: int, days: int, *, waiting: int) -> None:
    """What the crowd used on each of so many days before today, the last `waiting` of which have jobs that still wait,
    as the sums tell it. `copy` would forget it.
    """
    numbers, name = _numbers(db, 0, count), _crowd_name(db, "n")
    for ago in range(days, 0, -1):
        day, reserved = utc_day(time.time() - ago * DAY), int(ago <= waiting)

        async def write(tx: Tx, day: str = day, reserved: int = reserved) -> None:
            await tx.run(
                f"""INSERT INTO usage_days (account_id, day, charged, gpu_seconds, reserved)
                    SELECT {name}, '{day}', n % 7 + 1, n % 7 + 1, {reserved} FROM {numbers}"""
            )

        await db.write(write)


async def copy(db: Database, templates: Sequence[NewJob], count: int, *, crowd: int | None = None) -> None:
    """So many ready jobs more, copies of the templates, which are written too; counters follow.

    With a `crowd` they are of all its accounts in turns, and each account has jobs of two of the templates;
    without, a copy belongs to its template's account.
    """
    await put(db, *templates)
    listed = ", ".join(
        f"({number}, '{job.id}', '\"seed\":{job.params['seed']}')" for number, job in enumerate(templates)
    )
    which = "n" if crowd is None else f"(n % {crowd} + n / {crowd} % 2)"
    call = next(_calls)
    seed = f"'\"seed\":' || ({call * 10**9} + n)"
    values = {
        **{column.name: f"t.{column.name}" for column in tables.jobs.c},
        "id": f"'job_00{call:04d}' || {_padded(db, 'n', 20)}",
        "fingerprint": f"'{call:016d}' || {_padded(db, 'n', 16)}",
        "queued_at": "t.queued_at + n / 100000.0",
        "params": f"replace(t.params, w.column3, {seed})",
        "graph": _graph(db, f"replace({{}}, w.column3, {seed})"),
        "ordinal": f"n / {crowd or 1} + 2",
        "ordinal_cost": f"(n / {crowd or 1} + 2) * t.cost",
    }
    if crowd is not None:
        values["account_id"] = _crowd_name(db, f"n % {crowd}")
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        rows = f"""{_numbers(db, first, size)} JOIN (VALUES {listed}) AS w ON w.column1 = {which} % {len(templates)}
          JOIN jobs t ON t.id = w.column2"""
        made = f"id >= 'job_00{call:04d}{first:020d}' AND id < 'job_00{call:04d}{first + size:020d}'"
        await db.write(_writing(values, rows, made))
    await db.write(_count)
    if drift := await db.read(counters.drift):
        raise RuntimeError(f"counters that do not say what they count: {drift[:3]}")


def _writing(values: Mapping[str, str], rows: str, made: str) -> Callable[[Tx], Awaitable[None]]:
    async def write(tx: Tx) -> None:
        await tx.run(
            f"INSERT INTO jobs ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {rows}"
        )
        await tx.run(
            f"""INSERT INTO events (job_id, seq, type, status, at, data)
                SELECT id, 1, 'queued', 'queued', queued_at, '{{}}' FROM jobs WHERE {made}"""
        )
        await tx.run(
            f"""INSERT INTO outbox (job_id, account_id, seq, type, at)
                SELECT id, account_id, 1, 'queued', queued_at FROM jobs WHERE {made}"""
        )
        await tx.run(
            f"""INSERT INTO ledger (job_id, account_id, day, reserved)
                SELECT id, account_id, '{utc_day(time.time())}', images FROM jobs WHERE {made}"""
        )
        await tx.run(
            f"""INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
                SELECT account_id, 'key-' || id, fingerprint, id, queued_at FROM jobs WHERE {made}"""
        )

    return write


async def _count(tx: Tx) -> None:
    await counters.mend(tx)
    await tx.run("UPDATE lanes SET entered = queued, entered_cost = queued_cost")
    await tx.run("DELETE FROM usage_days")
    await tx.run(
        """INSERT INTO usage_days (account_id, day, reserved)
           SELECT account_id, day, sum(reserved) FROM ledger GROUP BY account_id, day"""
    )


def _numbers(db: Database, first: int, size: int) -> str:
    """A table of the numbers from `first`, column n."""
    last = first + size - 1
    if db.dialect.name == "sqlite":
        return f"""(WITH RECURSIVE s(n) AS (VALUES ({first}) UNION ALL SELECT n + 1 FROM s WHERE n < {last})
          SELECT n FROM s) AS s"""
    return f"generate_series({first}, {last}) AS s(n)"


def _padded(db: Database, number: str, digits: int) -> str:
    if db.dialect.name == "sqlite":
        return f"printf('%0{digits}d', {number})"
    return f"lpad(CAST({number} AS text), {digits}, '0')"


def _crowd_name(db: Database, number: str) -> str:
    return f"'acc_' || {_padded(db, number, 5)}"


def _graph(db: Database, change: str) -> str:
    """The graph, which is bytes, after a change of its text."""
    if db.dialect.name == "sqlite":
        text = change.format("CAST(t.graph AS text)")
        return f"CAST({text} AS blob)"
    text = change.format("convert_from(t.graph, 'UTF8')")
    return f"convert_to({text}, 'UTF8')"
