"""Fairness: shares by weight, how soon a new account's first job starts, and what a noisy one does to the others.

`comfy-api worker` over PostgreSQL, caps off. Jobs and accounts are put straight into the database, for what is measured
is who goes next, not how jobs come in; the worker finds them as it finds all others.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from benchmarks import backlog
from benchmarks.backlog import new_job
from benchmarks.driven import driven
from benchmarks.fleet import backends
from benchmarks.harness import Check, Options, median, ms, say
from benchmarks.stores import postgres
from comfy_api_service.db.base import Database, dumps

WEIGHTS: Final = {"acc_one": 1.0, "acc_two": 2.0, "acc_four": 4.0, "acc_eight": 8.0}
JOB_SECONDS: Final = 0.05
MEASURED: Final = {"all": JOB_SECONDS}
BACKENDS: Final = 4
LOOK_SECONDS: Final = 0.02
LIMIT_SECONDS: Final = 90.0
CLAIM_SECONDS: Final = 5.0
"""A claim is dated by its beginning; it may have waited for that long."""
QUIET: Final = 19
"""Accounts beside the noisy one; each has two jobs open all the time."""
OPEN: Final = 2


async def run(options: Options) -> list[Check]:
    folder = options.folder / "fairness"
    async with (
        postgres() as server,
        backends(folder / "backends", BACKENDS, seconds_per_prompt=JOB_SECONDS) as servers,
    ):
        async with driven(folder, server, servers, "shares", measured=MEASURED) as (db, starting):
            counted = options.choose(2000, 800)
            await backlog.add_accounts(db, WEIGHTS)
            longest = int(counted * max(WEIGHTS.values()) / sum(WEIGHTS.values()))
            await backlog.copy(
                db,
                [new_job(account=name, cost=JOB_SECONDS) for name in WEIGHTS],
                len(WEIGHTS) * (longest * 3 // 2 + 400),
            )
            starting.set()
            shares = await _shares(db, counted)
            overtaken = await _newcomers(db, options.choose(30, 10))
        async with driven(folder, server, servers, "noise", measured=MEASURED) as (db, starting):
            starting.set()
            noise = await _noise(db, options.choose(100_000, 20_000), options.choose(12, 8))
    return [shares, overtaken, noise]


async def _shares(db: Database, counted: int) -> Check:
    """Of the first so many claims."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(taken := await _claims(db, 0.0)) < counted:  # noqa: ASYNC110 - other processes do the work
            await asyncio.sleep(0.5)
    took = taken[counted - 1][1] - taken[0][1]
    got = Counter(account for account, _ in taken[:counted])
    whole = sum(WEIGHTS.values())
    off = {name: got[name] / counted * whole / weight - 1 for name, weight in WEIGHTS.items()}
    say(f"fairness: {counted} jobs in {took:.1f} s, {', '.join(f'{name} {got[name]}' for name in WEIGHTS)}")
    return Check(
        f"shares of {counted} jobs, furthest off",
        100 * max(abs(one) for one in off.values()),
        5,
        ", ".join(f"{100 * one:+.1f}" for one in off.values()) + " % with weights 1, 2, 4, 8",
        unit="%",
    )


async def _newcomers(db: Database, trials: int) -> Check:
    """The most jobs of one other account that were claimed between a first job's commit and its own claim."""
    passed = []
    for number in range(trials):
        name = f"acc_new_{number:02d}"
        await backlog.add_accounts(db, {name: 1.0})
        begun = time.time()
        await backlog.put(db, new_job(account=name, cost=JOB_SECONDS))
        before = await _claimed_before(db, name, begun, committed=time.time())
        passed.append(max(Counter(before).values(), default=0))
    say(f"fairness: before {trials} first jobs went at most {Counter(passed)} of one other account")
    return Check(
        "jobs of one account before a new one's first",
        max(passed),
        1,
        f"the most of {trials} new accounts; {sum(passed) / trials:.2f} on average",
        unit="jobs",
    )


async def _claimed_before(db: Database, name: str, begun: float, *, committed: float) -> list[str]:
    """Whose jobs were claimed from the commit of this account's first on, until that one was."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            later = await _claims(db, begun - CLAIM_SECONDS)
            accounts = [account for account, _ in later]
            if name in accounts:
                return [account for account, at in later[: accounts.index(name)] if at > committed]
            await asyncio.sleep(LOOK_SECONDS)


async def _claims(db: Database, since: float) -> list[tuple[str, float]]:
    """Accounts and moments of the claims that began after a moment, in order."""
    rows = await db.read(
        lambda tx: tx.all(
            """SELECT j.account_id, a.dispatched_at FROM attempts a JOIN jobs j ON j.id = a.job_id
               WHERE a.dispatched_at > :since ORDER BY a.dispatched_at""",
            {"since": since},
        )
    )
    return [(row["account_id"], row["dispatched_at"]) for row in rows]


async def _noise(db: Database, jobs: int, seconds: int) -> Check:
    """Waits of accounts that keep the pool busy, before and after one comes with a long queue."""
    quiet = [f"acc_quiet_{number:02d}" for number in range(QUIET)]
    await backlog.add_accounts(db, dict.fromkeys((*quiet, "acc_noisy"), 1.0))
    await _waits(db, quiet, 3)
    without = await _waits(db, quiet, seconds)
    say(f"fairness: without a noisy account {len(without)} waits, mean {ms(sum(without) / len(without))}")
    await backlog.copy(db, [new_job(account="acc_noisy", cost=JOB_SECONDS)], jobs)
    await _waits(db, quiet, 3)
    beside = await _waits(db, quiet, seconds)
    say(f"fairness: beside {jobs} jobs of one {len(beside)} waits, mean {ms(sum(beside) / len(beside))}")
    return Check(
        f"others' mean wait beside one with {jobs:,} jobs".replace(",", " "),
        sum(beside) / len(beside) / (sum(without) / len(without)),
        1.2,
        f"{QUIET} accounts that keep the pool busy; median {ms(median(beside))}, without {ms(median(without))}",
    )


async def _waits(db: Database, accounts: Sequence[str], seconds: float) -> list[float]:
    """From submission to start, of jobs that were submitted and started in so many seconds."""
    began = time.time()
    while time.time() < began + seconds:
        rows = await db.read(
            lambda tx: tx.all(
                f"SELECT account_id, queued + running AS n FROM lanes WHERE {tx.dialect.among('account_id', 'names')}",
                {"names": dumps(list(accounts))},
            )
        )
        wanted = [row["account_id"] for row in rows for _ in range(OPEN - row["n"])]
        if wanted:
            await backlog.put(db, *(new_job(account=name, cost=JOB_SECONDS) for name in wanted))
        await asyncio.sleep(LOOK_SECONDS)
    rows = await db.read(
        lambda tx: tx.all(
            f"""SELECT started_at - queued_at AS wait FROM jobs WHERE queued_at > :began AND started_at IS NOT NULL
                AND {tx.dialect.among("account_id", "names")}""",
            {"began": began, "names": dumps(list(accounts))},
        )
    )
    return [row["wait"] for row in rows]
