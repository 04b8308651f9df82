"""An account in trouble leaves the others what they would have without it: their share of the pool, by weight.

The accounts are rows, and their jobs come through the service's own submitter.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from tests.support.checker import check
from tests.support.stack import FAST, MODEL, ended, online, order, running, submit, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Tx
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.scheduling import ENTRY, WINDOW_JOBS
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.simulator import Simulator

BACKENDS: Final = 4
PLACES: Final = 2 * BACKENDS
"""Prompts that backends have at a time."""
PROMPT_SECONDS: Final = 0.08
STEADY: Final = replace(FAST, seconds_per_prompt=PROMPT_SECONDS, models={"checkpoints": (MODEL,)})
AWAY: Final = "away.safetensors"
ALSO_AWAY: Final = replace(STEADY, models={"checkpoints": (MODEL, AWAY)})
ODD: Final = "acc_odd"


@asynccontextmanager
async def pool(folder: Path) -> AsyncIterator[tuple[Service, list[Simulator]]]:
    """Four backends that are measured, and a model that was there until its backend left."""
    async with AsyncExitStack() as stack:
        sims = [await stack.enter_async_context(Simulator(STEADY)) for _ in range(BACKENDS)]
        away = await stack.enter_async_context(Simulator(ALSO_AWAY))
        urls = [sim.url for sim in (*sims, away)]
        service = await stack.enter_async_context(running(folder, *urls))
        await online(service, BACKENDS + 1)
        for job_id in [(await submit(service, order(seed=n))).job_id for n in range(3 * PLACES)]:
            await ended(service, job_id)
        await away.faults.die()

        async def left() -> bool:
            return (await service.pool.refresh()).online == BACKENDS

        await until(left)
        yield service, sims


async def full_queues(
    service: Service, sims: Sequence[Simulator], queues: Mapping[Account, tuple[int, str]]
) -> dict[str, list[str]]:
    """So many jobs for a model, submitted while the backends hold still; their ids by account."""
    for sim in sims:
        sim.faults.hang()

    async def ensure(tx: Tx) -> None:
        for account in queues:
            await accounts.ensure(tx, account, 1.0)

    await service.db.write(ensure)
    wanted = [(account, n, model) for account, (count, model) in queues.items() for n in range(count)]
    submitted = await asyncio.gather(
        *(
            service.services.submitter.submit(account, order(seed=n, model=model))
            for account, n, model in wanted
        )
    )
    made: dict[str, list[str]] = {account.id: [] for account in queues}
    for (account, _, _), one in zip(wanted, submitted, strict=True):
        made[account.id].append(one.job_id)
    for sim in sims:
        sim.faults.resume()
    return made


async def claims(service: Service) -> list[tuple[str, float | None]]:
    """Whose jobs were claimed, in order, since the measuring, and the GPU's seconds that each took; None for one
    that has not ended.
    """
    rows = await service.db.read(
        lambda tx: tx.all(
            """SELECT j.account_id, l.gpu_seconds FROM attempts a JOIN jobs j ON j.id = a.job_id
               LEFT JOIN ledger l ON l.job_id = j.id
               WHERE j.account_id <> 'acc_local' ORDER BY a.dispatched_at"""
        )
    )
    return [(row["account_id"], row["gpu_seconds"]) for row in rows]


async def until_claimed(service: Service, count: int) -> None:
    async def enough() -> bool:
        return len(await claims(service)) >= count

    await until(enough)


async def shares(service: Service, count: int, *, of: str = "", after: int = 0) -> dict[str, float]:
    """What each account got of `count` claims, `after` so many, as if jobs were alike: what is shared is the time of
    GPUs, and on a busy machine a job takes the longer, the more run beside it.
    """
    taken: list[tuple[str, float]] = []

    async def ended() -> bool:
        nonlocal taken
        found = [one for one in (await claims(service))[after:] if one[0].startswith(of)][:count]
        taken = [(account, seconds) for account, seconds in found if seconds is not None]
        return len(taken) == count

    await until(ended)
    whole = sum(seconds for _, seconds in taken)
    got: defaultdict[str, float] = defaultdict(float)
    for account, seconds in taken:
        got[account] += seconds * count / whole
    return got


async def others_ended(service: Service) -> bool:
    row = await service.db.read(
        lambda tx: tx.one(
            "SELECT count(*) AS n FROM jobs WHERE account_id LIKE 'acc_other%' AND state <> 'succeeded'"
        )
    )
    return row is not None and row["n"] == 0


async def cap(service: Service, account: str, most: int) -> None:
    await service.db.write(
        lambda tx: tx.run(
            "UPDATE lanes SET cap = :most WHERE account_id = :id", {"most": most, "id": account}
        )
    )


@pytest.mark.parametrize("trouble", ["none", "model away", "at its cap"])
async def test_others_get_their_shares_beside_an_account_in_trouble(tmp_path: Path, trouble: str) -> None:
    """Weights 1 and 3; the odd one's is 4, and its queue as long as all others' together."""
    one, three = (
        Account("acc_other_1", "1", "free", limits=Limits(weight=1.0)),
        Account("acc_other_3", "3", "free", limits=Limits(weight=3.0)),
    )
    odd = Account(ODD, "odd", "free", limits=Limits(weight=4.0))
    async with pool(tmp_path) as (service, sims):
        await service.db.write(lambda tx: accounts.ensure(tx, odd, 1.0))
        if trouble == "at its cap":
            await cap(service, ODD, 1)
        queues = {one: (60, MODEL), three: (130, MODEL)}
        if trouble != "none":
            queues[odd] = (100, AWAY if trouble == "model away" else MODEL)
        jobs = await full_queues(service, sims, queues)
        got = await shares(service, 120, of="acc_other")
        assert abs(got[three.id] - 90) <= 6
        odd_ones = [account for account, _ in (await claims(service))[:120]].count(ODD)
        if trouble == "at its cap":  # one of eight places; the half without its cap
            assert 0 < odd_ones <= 30
        else:
            assert odd_ones == 0
        await until(lambda: others_ended(service))
    check(tmp_path, [job for ids in jobs.values() for job in ids], all_ended=False)


async def test_a_cap_that_is_raised_gives_a_share_and_no_arrears(tmp_path: Path) -> None:
    """Three accounts alike: at its cap of one place the third had an eighth, then it has a third."""
    odd = Account(ODD, "odd", "free")
    first, second = Account("acc_other_1", "1", "free"), Account("acc_other_2", "2", "free")
    async with pool(tmp_path) as (service, sims):
        await service.db.write(lambda tx: accounts.ensure(tx, odd, 1.0))
        await cap(service, ODD, 1)
        queues = {first: (160, MODEL), second: (160, MODEL), odd: (160, MODEL)}
        jobs = await full_queues(service, sims, queues)
        await until_claimed(service, 180)
        await cap(service, ODD, 2**31 - 1)
        known = len(await claims(service))
        after = await shares(service, 90, after=known)
        lead = ENTRY * WINDOW_JOBS
        assert 30 - PLACES <= after[ODD] <= 30 + lead + PLACES
        assert abs(after[first.id] - after[second.id]) <= PLACES
        assert min(after[first.id], after[second.id]) >= 30 - (lead + PLACES) / 2
    check(tmp_path, [job for ids in jobs.values() for job in ids], all_ended=False)
