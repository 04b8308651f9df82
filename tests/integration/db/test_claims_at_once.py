"""Claims of several processes on one PostgreSQL, here two engines: no job is given twice, none is left."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.checker import check
from tests.support.rows import (
    Pair,
    add_accounts,
    add_backend,
    claim,
    claim_all,
    drift,
    new_job,
    put,
    until_somebody_waits,
)

from comfy_api_service.db import claims
from comfy_api_service.db.base import Tx
from comfy_api_service.db.claims import Busy
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.domain.ids import new_prompt_id


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c", "d", "e", "f")], ids=["one lane", "six lanes"])
async def test_claims_at_once_never_give_one_job_twice_and_leave_none(
    both: Pair, tmp_path: Path, names: Sequence[str]
) -> None:
    await add_accounts(both[0], *names)
    claimants = [await add_backend(both[0], backend_id=f"bck_{n}") for n in range(6)]
    put_down = await put(
        both[0], *(new_job(account=name) for name in names for _ in range(120 // len(names)))
    )
    gave = await asyncio.gather(*(claim_all(both[n % 2], one) for n, one in enumerate(claimants)))
    taken = [one for found in gave for one in found]
    assert sorted(one.job_id for one in taken) == sorted(put_down)
    assert {one.attempt for one in taken} == {1}
    assert len({one.prompt_id for one in taken}) == len(taken)
    assert await drift(both[0]) == []
    check(tmp_path, put_down, all_ended=False)


async def test_virtual_time_is_charged_for_every_claim(both: Pair) -> None:
    """Backends for different models take different heads of one lane, and add to one virtual time."""
    models = ("one.safetensors", "two.safetensors", "three.safetensors")
    claimants = [await add_backend(both[0], models[n % 3], backend_id=f"bck_{n}") for n in range(6)]
    await put(both[0], *(new_job(cost=2.0, model=models[n % 3]) for n in range(90)))
    await asyncio.gather(*(claim_all(both[n % 2], one) for n, one in enumerate(claimants)))
    row = await both[0].read(lambda tx: tx.one("SELECT vtime, running, queued, queued_cost FROM lanes"))
    assert row is not None
    assert (row["vtime"], row["running"], row["queued"], row["queued_cost"]) == (180.0, 90, 0, 0.0)


async def test_a_cap_is_never_passed(both: Pair) -> None:
    claimants = [await add_backend(both[0], backend_id=f"bck_{n}") for n in range(6)]
    await put(both[0], *(new_job() for _ in range(30)))
    await both[0].write(lambda tx: tx.run("UPDATE lanes SET cap = 4"))
    gave = await asyncio.gather(*(claim_all(both[n % 2], one) for n, one in enumerate(claimants)))
    assert sum(len(found) for found in gave) == 4


async def test_a_lane_that_is_locked_is_passed_by_and_waited_for_only_a_moment(
    both: Pair, tmp_path: Path
) -> None:
    await add_accounts(both[0], "a", "b")
    claimant = await add_backend(both[0])
    first, second = await put(both[0], new_job(account="a"), new_job(account="b"))
    async with holding_lane(both[0], "a"):
        taken = await claim(both[1], claimant)
        assert taken is not None
        assert taken.job_id == second
        found = await claims.next_job(both[1], claimant, prompt_id=new_prompt_id(), now=1.0)
        assert isinstance(found, Busy)
    taken = await claim(both[1], claimant)
    assert taken is not None
    assert taken.job_id == first
    check(tmp_path, all_ended=False)


async def test_a_lane_that_is_free_again_in_time_is_not_passed_by(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", "5s")
    await add_accounts(both[0], "a", "b")
    claimant = await add_backend(both[0])
    first, _ = await put(both[0], new_job(account="a"), new_job(account="b"))
    async with holding_lane(both[0], "a"):
        claiming = asyncio.create_task(claim(both[1], claimant))
        await until_somebody_waits(both[0])
    taken = await claiming
    assert taken is not None
    assert taken.job_id == first


async def test_nobody_gets_further_ahead_than_the_window_of_a_lane_that_is_locked(both: Pair) -> None:
    await add_accounts(both[0], "a", "b")
    claimant = await add_backend(both[0])
    await put(both[0], new_job(account="a"), new_job(account="b"))
    await both[0].write(lambda tx: tx.run("UPDATE lanes SET vtime = 10000 WHERE account_id = 'b'"))
    async with holding_lane(both[0], "a"):
        found = await claims.next_job(both[1], claimant, prompt_id=new_prompt_id(), now=1.0)
    assert isinstance(found, Busy)


@asynccontextmanager
async def holding_lane(db: PostgresDatabase, account: str) -> AsyncIterator[None]:
    """Somebody else's transaction has locked a lane."""
    has, let_go = asyncio.Event(), asyncio.Event()

    async def hold(tx: Tx) -> None:
        await tx.run("UPDATE lanes SET weight = weight WHERE account_id = :one", {"one": account})
        has.set()
        await let_go.wait()

    task = asyncio.ensure_future(db.write(hold))
    await has.wait()
    yield
    let_go.set()
    await task


async def test_a_claimant_that_was_replaced_takes_nothing(both: Pair) -> None:
    claimant = await add_backend(both[0])
    await put(both[0], new_job())
    await both[0].write(lambda tx: tx.run("UPDATE backends SET worker_id = 'wrk-other'"))
    assert await claim(both[1], claimant) is None
