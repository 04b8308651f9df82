"""Lanes that become ready again enter near V: nothing is saved up while no backend could run their jobs."""

import pytest
from tests.support.rows import add_backend, inventory_of_checkpoints, new_job, put

from comfy_api_service.db import backends, lanes
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.scheduling import entering

V = 100_000.0
HERE, AWAY = "here.safetensors", "away.safetensors"


async def vtime(db: Database) -> float:
    row = await db.read(lambda tx: tx.one("SELECT vtime FROM lanes"))
    assert row is not None
    return float(row["vtime"])


async def others_are_served(db: Database) -> float:
    """V moves on; gives the virtual time at which a lane enters now."""
    await db.write(lambda tx: tx.run("UPDATE workers SET start_tag = :v", {"v": V}))
    return entering(0.0, V, (await db.read(lanes.frontier)).window)


async def test_a_lane_whose_model_comes_enters_anew(db: Database) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=AWAY))
    entry = await others_are_served(db)
    assert await vtime(db) == 0
    await add_backend(db, AWAY, backend_id="bck_2")
    assert await vtime(db) == entry


async def test_a_lane_that_another_backend_served_all_along_stays_where_it_is(db: Database) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=AWAY), new_job(model=HERE))
    await others_are_served(db)
    await add_backend(db, AWAY, backend_id="bck_2")
    await put(db, new_job(model=AWAY), new_job(model=HERE))
    assert await vtime(db) == 0


@pytest.mark.parametrize("served_by", ["offline", "removed"])
async def test_who_does_not_take_work_serves_nobody(db: Database, served_by: str) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=HERE))
    entry = await others_are_served(db)
    if served_by == "offline":
        await db.write(
            lambda tx: backends.describe(
                tx, "bck_1", worker_id="wrk-bck_1", state=BackendState.OFFLINE, now=2.0
            )
        )
    else:
        await db.write(lambda tx: backends.remove(tx, "bck_1", 2.0))
    await add_backend(db, HERE, backend_id="bck_2")
    assert await vtime(db) == entry


async def test_a_backend_that_says_again_what_it_has_moves_nobody(db: Database) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=HERE))
    await others_are_served(db)

    async def describe_again(tx: Tx) -> None:
        await lanes.admit(tx, inventory_of_checkpoints(HERE).hash)
        await lanes.admit(tx, inventory_of_checkpoints(HERE, "another.safetensors").hash)

    await db.write(describe_again)
    assert await vtime(db) == 0


async def test_a_lane_that_only_waited_for_an_absent_model_enters_with_its_next_job(
    db: Database,
) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=AWAY))
    entry = await others_are_served(db)
    await put(db, new_job(model=HERE))
    assert await vtime(db) == entry
