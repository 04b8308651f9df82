"""Submissions of several processes on one PostgreSQL, here two engines: each decision is made once."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.cutting_proxy import Cut, proxied
from tests.support.postgres import PostgresServer
from tests.support.rows import Pair, add_accounts, door, need, new_job
from tests.support.schema import url_of

from comfy_api_service.db import requirements
from comfy_api_service.db.insertion import KeyReused, QueueFull, Replay, Written, insert
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.inventory import Inventory, NodeClass
from comfy_api_service.domain.submission import JobOptions


async def test_one_key_from_many_senders_is_one_job(both: Pair, far: bool, tmp_path: Path) -> None:
    doors = [await door(db, far=far) for db in both]
    sent = [new_job(key=f"key {n % 25}", fingerprint=f"body {n % 25}") for n in range(200)]
    outcomes = await asyncio.gather(*(doors[n % 7 % 2].add(job) for n, job in enumerate(sent)))
    by_key: dict[str, set[str]] = {}
    for job, outcome in zip(sent, outcomes, strict=True):
        assert isinstance(outcome, Written | Replay)
        made = job.id if isinstance(outcome, Written) else outcome.job_id
        by_key.setdefault(str(job.idempotency_key), set()).add(made)
    assert [len(made) for made in by_key.values()] == [1] * 25
    assert sum(isinstance(outcome, Written) for outcome in outcomes) == 25
    check(tmp_path, (made for one in by_key.values() for made in one), all_ended=False)


async def test_one_key_with_two_bodies_at_once_is_one_job_and_one_refusal(both: Pair, far: bool) -> None:
    doors = [await door(db, far=far) for db in both]
    for n in range(20):
        gave = await asyncio.gather(
            *(
                door.add(new_job(key=f"k{n}", fingerprint=f"body {number}"))
                for number, door in enumerate(doors)
            )
        )
        assert {type(one) for one in gave} == {Written, KeyReused}


async def test_a_key_of_a_refused_job_can_be_used_again(both: Pair) -> None:
    (door,) = (Submissions(both[0], queue_limit=1),)
    assert isinstance(await door.add(new_job()), Written)
    assert isinstance(await door.add(new_job(key="k", fingerprint="one")), QueueFull)
    row = await both[0].read(lambda tx: tx.one("SELECT count(*) AS keys FROM idempotency_keys"))
    assert row is not None
    assert row["keys"] == 0
    wide = Submissions(both[1], queue_limit=9)
    assert isinstance(await wide.add(new_job(key="k", fingerprint="two")), Written)


async def test_a_key_goes_to_the_first_of_a_group_that_is_taken(both: Pair) -> None:
    """The first is merged into an identical one and leaves its key to the second."""
    door = Submissions(both[0], queue_limit=100)
    same = new_job(fingerprint="same")
    merged = new_job(fingerprint="same", key="k", options=JobOptions(dedupe=True))
    plain = new_job(fingerprint="same", key="k")
    assert isinstance(await door.add(same), Written)
    gave = await asyncio.gather(door.add(merged), door.add(plain))
    assert gave[0] == Replay(same.id, by_key=False)
    assert isinstance(gave[1], Written)
    assert await door.add(new_job(fingerprint="same", key="k")) == Replay(plain.id, by_key=True)


async def test_a_key_is_free_again_after_a_day_for_one_of_several(both: Pair, far: bool) -> None:
    doors = [await door(db, far=far) for db in both]
    await doors[0].add(new_job(key="k", at=1_000.0))
    late = [new_job(key="k", fingerprint="another", at=90_000.0) for _ in range(10)]
    outcomes = await asyncio.gather(*(doors[n % 2].add(job) for n, job in enumerate(late)))
    assert sum(isinstance(outcome, Written) for outcome in outcomes) == 1


async def test_identical_requests_under_dedupe_are_one_job(both: Pair) -> None:
    doors = [Submissions(db, queue_limit=10_000) for db in both]
    for n in range(15):
        gave = await asyncio.gather(
            *(
                doors[number % 2].add(new_job(fingerprint=f"p{n}", options=JobOptions(dedupe=True)))
                for number in range(4)
            )
        )
        assert sum(isinstance(one, Written) for one in gave) == 1


async def test_the_queue_limit_is_exact(both: Pair) -> None:
    await add_accounts(both[0], *(f"acc{n}" for n in range(10)))
    doors = [Submissions(db, queue_limit=77) for db in both]

    async def send(number: int) -> Any:
        await asyncio.sleep(random.random() / 20)
        return await doors[number % 2].add(new_job(account=f"acc{number % 10}"))

    outcomes = await asyncio.gather(*(send(number) for number in range(200)))
    assert sum(isinstance(outcome, Written) for outcome in outcomes) == 77
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 123


async def test_a_need_and_an_inventory_that_come_at_once_see_each_other(both: Pair) -> None:
    for n in range(20):
        name = f"m{n}.safetensors"
        inventory = Inventory(
            classes={"CheckpointLoaderSimple": NodeClass("CheckpointLoaderSimple", {}, ("MODEL",), False)},
            models={"checkpoints": (name,)},
        )
        wanted = {need(name).id: need(name)}
        await asyncio.gather(
            both[0].write(lambda tx: requirements.store_inventory(tx, inventory, 0.0)),  # noqa: B023
            both[1].write(lambda tx: requirements.ensure_requirements(tx, wanted, 0.0)),  # noqa: B023
        )
        rows = await both[0].read(
            lambda tx: tx.all("SELECT 1 FROM capabilities WHERE requirement_id = :id", {"id": need(name).id})  # noqa: B023
        )
        assert len(rows) == 1


@pytest.mark.parametrize("cut", list(Cut))
async def test_a_group_whose_commit_nobody_heard_of_is_there_once(
    both: Pair, postgres: PostgresServer, tmp_path: Path, cut: Cut
) -> None:
    url = url_of(tmp_path)
    assert url is not None
    await both[0].write(lambda tx: insert(tx, [new_job(key="earlier")], queue_limit=9))
    async with proxied(postgres.port) as proxy:
        address = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        through = await PostgresDatabase.open(address, application="tests", connections=2)
        door = Submissions(through, queue_limit=100)
        await through.read(lambda tx: tx.one("SELECT 1"))
        proxy.cut_at(b"COMMIT", cut)
        jobs = [new_job(), new_job(key="k"), new_job(key="earlier"), new_job(key="k", fingerprint="else")]
        outcomes = await asyncio.gather(*(door.add(job) for job in jobs))
        assert proxy.cuts == 1
        assert [type(one) for one in outcomes] == [Written, Written, Replay, KeyReused]
        assert [one.ordinal for one in outcomes if isinstance(one, Written)] == [2, 3]
        await through.close()
    check(tmp_path, [jobs[0].id, jobs[1].id], all_ended=False)
    row = await both[0].read(lambda tx: tx.one("SELECT count(*) AS jobs FROM jobs"))
    assert row is not None
    assert row["jobs"] == 3
