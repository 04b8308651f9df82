"""Affinity: how seldom models are loaded, on simulators at a twentieth of real time, beside first come first served.

Four backends with one resident model each, eight models by Zipf's law, 20 accounts. Jobs take 0.15 s, loads 0.4 s.
First with arrivals at 0.7 of capacity and equal weights, then with a full backlog and weights 1, 2, 4, 8 in turn, that
again without loads.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from benchmarks import backlog, record
from benchmarks.backlog import new_job
from benchmarks.bare import protocol
from benchmarks.driven import driven
from benchmarks.fleet import backends
from benchmarks.harness import Check, Options, percentile, say
from benchmarks.servers import Server
from benchmarks.stores import postgres
from comfy_api_service.db.base import Database
from comfy_api_service.domain.scheduling import WINDOW_JOBS
from comfy_api_service.domain.submission import NewJob

BACKENDS: Final = 4
MODELS: Final = tuple(f"model-{number}.safetensors" for number in range(8))
POPULARITY: Final = tuple(1 / rank for rank in range(1, len(MODELS) + 1))
ACCOUNTS: Final = tuple(f"acc_{number:02d}" for number in range(20))
WEIGHTS: Final = dict(zip(ACCOUNTS, cycle((1.0, 2.0, 4.0, 8.0)), strict=False))
STEPS: Final = 3
JOB_SECONDS: Final = 0.15
LOAD_SECONDS: Final = 0.4
LOAD: Final = 0.7
WAIT_JOBS: Final = 60
BEHIND: Final = 0.9
"""Who falls behind does less than that of what is offered, however long it is given."""
SETTLING: Final = 0.25
"""The share of a run that goes by before it is looked at."""
FULL: Final = 1.8
"""Jobs that wait at the beginning, over what could be done in the time."""
LIMIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.02
SAMPLE_SECONDS: Final = 0.5
AT_ONCE: Final = 20
MEASURED: Final = {"all": JOB_SECONDS} | {f"load:checkpoints/{model}": LOAD_SECONDS for model in MODELS}


@dataclass(frozen=True, slots=True)
class Arrival:
    at: float
    """Seconds from the start."""
    account: str
    model: str


async def run(options: Options) -> list[Check]:
    seconds = options.choose(30, 15)
    arrivals = _arrivals(seconds)
    folder = options.folder / "affinity"
    simulated = {"models": {"checkpoints": MODELS}, "seconds_per_step": JOB_SECONDS / STEPS}
    async with (
        postgres() as server,
        backends(folder / "loading", BACKENDS, seconds_per_load=LOAD_SECONDS, **simulated) as loading,
        backends(folder / "ready", BACKENDS, **simulated) as ready,
    ):
        async with driven(folder, server, loading, "arriving", measured=MEASURED) as (db, starting):
            starting.set()
            served = await _served(db, loading, arrivals)
        first_come = await _first_come(loading, arrivals, seconds)
        async with driven(folder, server, loading, "behind", measured=MEASURED) as (db, starting):
            behind = await _full(db, loading, starting, seconds)
        async with driven(folder, server, ready, "ready", measured=MEASURED) as (db, starting):
            without = await _full(db, ready, starting, seconds)
    return [*_at_load(served, first_come, len(arrivals)), *_behind(behind, without)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    loads: float
    """Of 100 jobs."""
    done: int
    waits: tuple[float, ...] = ()
    rate: float = 0.0
    """Jobs a second."""
    furthest: float = 0.0
    """Jobs that an account had more or less than its share by weight, at the worst moment."""


def _at_load(served: Outcome, first_come: Outcome, offered: int) -> list[Check]:
    return [
        Check(
            f"model loads at {LOAD} of capacity",
            served.loads,
            18,
            f"first come first served: {first_come.loads:.0f}",
            unit="of 100 jobs",
        ),
        Check(
            "jobs done of those offered",
            served.done / offered,
            1,
            f"{served.done} jobs",
            unit="of all",
            at_least=True,
        ),
        Check(
            "of those, first come first served falls behind",
            first_come.done / offered,
            BEHIND,
            f"{first_come.done} jobs",
            unit="of all",
        ),
        Check(
            "wait there, p99",
            percentile(served.waits, 99) / JOB_SECONDS,
            WAIT_JOBS,
            f"p50 {percentile(served.waits, 50) / JOB_SECONDS:.0f}",
            unit="jobs' time",
        ),
    ]


def _behind(behind: Outcome, without: Outcome) -> list[Check]:
    return [
        Check("model loads with a full backlog", behind.loads, 6, f"{behind.done} jobs", unit="of 100 jobs"),
        Check(
            "throughput over that without loads",
            behind.rate / without.rate,
            0.88,
            f"{behind.rate:.1f} jobs a second, without loads {without.rate:.1f}",
            at_least=True,
        ),
        Check(
            "furthest account from its share",
            behind.furthest,
            WINDOW_JOBS,
            f"{len(ACCOUNTS)} with weights 1, 2, 4, 8, at the worst moment; without loads {without.furthest:.1f}",
            unit="jobs",
        ),
    ]


def _arrivals(seconds: float) -> list[Arrival]:
    """The same for both sides; at random moments."""
    source = random.Random(3)
    rate = LOAD * BACKENDS / JOB_SECONDS
    at, arrivals = 0.0, []
    while (at := at + source.expovariate(rate)) < seconds:
        arrivals.append(Arrival(at, source.choice(ACCOUNTS), source.choices(MODELS, POPULARITY)[0]))
    return arrivals


async def _served(db: Database, servers: Sequence[Server], arrivals: Sequence[Arrival]) -> Outcome:
    await backlog.add_accounts(db, dict.fromkeys(ACCOUNTS, 1.0))
    await backlog.put(db, *(_job(ACCOUNTS[0], model) for model in MODELS))
    await _until_done(db, len(MODELS), LIMIT_SECONDS)  # the worker is there
    before, began = await _loads(servers), time.time()
    left = list(arrivals)
    while left:
        due = [one for one in left if one.at <= time.time() - began]
        if due:
            del left[: len(due)]
            await backlog.put(db, *(_job(one.account, one.model) for one in due))
        await asyncio.sleep(LOOK_SECONDS)
    done = await _until_done(db, len(MODELS) + len(arrivals), WAIT_JOBS * JOB_SECONDS) - len(MODELS)
    loads = 100 * (await _loads(servers) - before) / len(arrivals)
    rows = await db.read(
        lambda tx: tx.all(
            "SELECT started_at - queued_at AS wait FROM jobs WHERE queued_at > :began AND started_at IS NOT NULL",
            {"began": began},
        )
    )
    say(f"affinity: {done} of {len(arrivals)} jobs done, loads on {loads:.1f} of 100")
    return Outcome(loads, done, tuple(row["wait"] for row in rows))


async def _first_come(servers: Sequence[Server], arrivals: Sequence[Arrival], seconds: float) -> Outcome:
    """The bare protocol: the oldest job goes to the first backend that is free; as long as the other side had."""
    queue: asyncio.Queue[Arrival] = asyncio.Queue()
    before, done = await _loads(servers), 0

    async def drive(server: Server) -> None:
        nonlocal done
        async with protocol.connected(server.url) as one:
            while True:
                await one.post(model=(await queue.get()).model, steps=STEPS)
                await one.ended()
                done += 1

    driving = [asyncio.create_task(drive(server)) for server in servers]
    began = time.monotonic()
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, began + arrival.at - time.monotonic()))
        queue.put_nowait(arrival)
    await asyncio.sleep(max(0.0, began + seconds + WAIT_JOBS * JOB_SECONDS - time.monotonic()))
    for task in driving:
        task.cancel()
    await asyncio.gather(*driving, return_exceptions=True)
    loads = 100 * (await _loads(servers) - before) / max(done, 1)
    say(
        f"affinity: first come first served, {done} of {len(arrivals)} jobs done, loads on {loads:.1f} of 100"
    )
    return Outcome(loads, done)


async def _full(db: Database, servers: Sequence[Server], starting: asyncio.Event, seconds: float) -> Outcome:
    """All accounts have jobs waiting all the time."""
    jobs = _backlog(seconds)
    await backlog.add_accounts(db, WEIGHTS)
    for first in range(0, len(jobs), AT_ONCE):
        await backlog.put(db, *jobs[first : first + AT_ONCE])
    given = Counter(job.account_id for job in jobs)
    starting.set()
    settled = int(SETTLING * seconds * BACKENDS / JOB_SECONDS)
    furthest = [await _off(db, given)]
    until = time.monotonic() + LIMIT_SECONDS
    while await _ended(db) < settled and time.monotonic() < until:
        await asyncio.sleep(SAMPLE_SECONDS)
        furthest.append(await _off(db, given))
    before = [await record.read(one) for one in servers]
    began = time.monotonic()
    while (took := time.monotonic() - began) < seconds * (1 - SETTLING):
        await asyncio.sleep(SAMPLE_SECONDS)
        furthest.append(await _off(db, given))
    after = [await record.read(one) for one in servers]
    done = sum(len(now.since(then)) for now, then in zip(after, before, strict=True))
    loads = sum(one.model_loads for one in after) - sum(one.model_loads for one in before)
    say(
        f"affinity: full backlog, {done} jobs in {took:.1f} s, {loads} loads, furthest off {max(furthest):.1f} jobs, "
        f"at the end {furthest[-1]:.1f}"
    )
    return Outcome(100 * loads / done, done, rate=done / took, furthest=max(furthest))


def _backlog(seconds: float) -> list[NewJob]:
    """By weight, in no order; some more for those who have least."""
    source = random.Random(5)
    whole = FULL * seconds * BACKENDS / JOB_SECONDS
    names = [
        name
        for name, weight in WEIGHTS.items()
        for _ in range(int(whole * weight / sum(WEIGHTS.values())) + WINDOW_JOBS)
    ]
    source.shuffle(names)
    return [
        _job(name, model)
        for name, model in zip(names, source.choices(MODELS, POPULARITY, k=len(names)), strict=True)
    ]


async def _off(db: Database, given: Mapping[str, int]) -> float:
    """How many jobs the account furthest from its share by weight of all that were taken is off, now."""
    rows = await db.read(
        lambda tx: tx.all("SELECT account_id, queued FROM lanes WHERE account_id <> 'acc_local'")
    )
    waiting = {str(row["account_id"]): int(row["queued"]) for row in rows}
    if min(waiting.values()) == 0:
        raise RuntimeError("an account had no job waiting any more")
    taken = {name: given[name] - queued for name, queued in waiting.items()}
    each = sum(taken.values()) / sum(WEIGHTS.values())
    return max(abs(taken[name] - each * weight) for name, weight in WEIGHTS.items())


def _job(account: str, model: str) -> NewJob:
    return new_job(account=account, model=model, cost=JOB_SECONDS, steps=STEPS)


async def _loads(servers: Sequence[Server]) -> int:
    return sum([(await record.read(one)).model_loads for one in servers])


async def _until_done(db: Database, count: int, seconds: float) -> int:
    """How many jobs have ended, when so many have or the time is over."""
    until = time.monotonic() + seconds
    while (found := await _ended(db)) < count and time.monotonic() < until:  # noqa: ASYNC110 - other processes do the work
        await asyncio.sleep(0.2)
    return found


async def _ended(db: Database) -> int:
    row = await db.read(lambda tx: tx.one("SELECT count(*) AS n FROM jobs WHERE finished_at IS NOT NULL"))
    return 0 if row is None else int(row["n"])
