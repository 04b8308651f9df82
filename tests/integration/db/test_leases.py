"""Workers on either database: who is dead, who drives what, and whose writes count."""

import pytest
from tests.support.rows import add_backend, claim, new_job, put

from comfy_api_service.db import backends, transitions, work, workers
from comfy_api_service.db.base import Database
from comfy_api_service.db.endings import Ending
from comfy_api_service.domain.job import State

OLD, NEW = "wrk-bck_1", "wrk-new"


async def enter(db: Database, worker_id: str = NEW) -> None:
    await db.write(
        lambda tx: workers.register(tx, worker_id, node_id="node", scope=["bck_1"], now=0.0, alone=False)
    )


async def test_a_worker_that_proved_its_life_meanwhile_is_not_buried(db: Database) -> None:
    await add_backend(db)
    counter = (await db.read(workers.counters))[OLD]
    assert await db.write(lambda tx: workers.prove_life(tx, OLD))
    with pytest.raises(workers.StillAlive):
        await db.write(lambda tx: workers.bury(tx, OLD, counter))
    (backend,) = await db.read(backends.every)
    assert backend.worker_id == OLD
    await db.write(lambda tx: workers.bury(tx, OLD, counter + 1))
    (backend,) = await db.read(backends.every)
    assert backend.worker_id is None
    assert not await db.write(lambda tx: workers.prove_life(tx, OLD))


async def test_a_backend_has_one_living_driver(db: Database) -> None:
    await add_backend(db)
    await enter(db)
    assert await db.write(lambda tx: backends.take(tx, "bck_1", NEW)) is None
    await db.write(lambda tx: workers.bury(tx, OLD))
    taken = await db.write(lambda tx: backends.take(tx, "bck_1", NEW))
    assert taken is not None
    assert (taken.id, taken.worker_id) == ("bck_1", NEW)
    assert not await db.write(lambda tx: backends.hold(tx, "bck_1", OLD))


async def test_a_worker_that_did_not_hear_of_a_commit_takes_its_backend_again(db: Database) -> None:
    """What it took and does not drive, nobody else would: it lives."""
    await add_backend(db)
    again = await db.write(lambda tx: backends.take(tx, "bck_1", OLD))
    assert again is not None
    assert again.worker_id == OLD
    await db.write(lambda tx: backends.remove(tx, "bck_1", 2.0))
    assert await db.write(lambda tx: backends.take(tx, "bck_1", OLD)) is None


async def test_a_worker_that_did_not_hear_of_a_commit_enters_again(db: Database) -> None:
    await add_backend(db)
    await enter(db)
    assert await db.write(lambda tx: workers.prove_life(tx, NEW))
    await enter(db)
    assert NEW in await db.read(workers.counters)
    assert NEW in {worker.id for worker in await db.read(workers.living)}
    assert await db.write(lambda tx: workers.prove_life(tx, NEW))


async def test_who_was_replaced_writes_nothing_any_more(db: Database) -> None:
    claimant = await add_backend(db)
    (job_id,) = await put(db, new_job())
    claimed = await claim(db, claimant)
    assert claimed is not None
    await enter(db)
    assert await db.write(lambda tx: work.adopt(tx, "bck_1", NEW)) == []  # its driver lives
    await db.write(lambda tx: workers.bury(tx, OLD))
    await db.write(lambda tx: backends.take(tx, "bck_1", NEW))
    (adopted,) = await db.write(lambda tx: work.adopt(tx, "bck_1", NEW))
    assert (adopted.job_id, adopted.attempt, adopted.prompt_id) == (job_id, 1, claimed.prompt_id)
    stale, ending = claimed.fence, Ending(State.SUCCEEDED, values={"1": ["x"]})
    assert await db.write(lambda tx: transitions.started(tx, stale, now=2.0)) is None
    assert not await db.write(lambda tx: transitions.storing(tx, stale))
    assert await db.write(lambda tx: transitions.requeue(tx, stale, reason="lost", now=2.0)) is None
    assert await db.write(lambda tx: transitions.finish(tx, stale, ending, now=2.0)) is None
    assert await db.read(lambda tx: work.left_over(tx, stale, ["k"], mine=True)) == []
    assert await claim(db, claimant) is None
    assert await db.write(lambda tx: transitions.started(tx, adopted.fence, now=3.0)) is not None
    assert await db.write(lambda tx: transitions.finish(tx, adopted.fence, ending, now=4.0)) is not None
    assert await db.read(lambda tx: work.left_over(tx, stale, ["k"], mine=False)) == ["k"]


async def test_what_nobody_drives_is_told_of(db: Database) -> None:
    claimant = await add_backend(db)
    await put(db, new_job())
    await claim(db, claimant)
    assert await db.read(work.abandoned_backends) == {}
    await db.write(lambda tx: workers.bury(tx, OLD))
    assert await db.read(work.abandoned_backends) == {"bck_1": False}
    await db.write(lambda tx: backends.remove(tx, "bck_1", 2.0))
    assert await db.read(work.abandoned_backends) == {"bck_1": True}


async def test_settings_take_off_the_list_what_nobody_drives(db: Database) -> None:
    await add_backend(db)
    await db.write(lambda tx: backends.retire(tx, [], node_id="node", now=1.0))
    assert len(await db.read(backends.every)) == 1
    await db.write(lambda tx: workers.bury(tx, OLD))
    await db.write(lambda tx: backends.retire(tx, [], node_id="elsewhere", now=1.0))
    assert len(await db.read(backends.every)) == 1
    await db.write(lambda tx: backends.retire(tx, [], node_id="node", now=1.0))
    assert await db.read(backends.every) == []
