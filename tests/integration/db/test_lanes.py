"""Lanes that become ready again enter near V of the backends that serve them: nothing is saved up while no backend
could run their jobs, and nobody waits for what backends do that could not run them.
"""

import pytest
from tests.support.rows import (
    add_accounts,
    add_backend,
    claim,
    comes_with,
    inventory_of_checkpoints,
    new_job,
    put,
)

from comfy_api_service.db import backends, claims, lanes, transitions
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.scheduling import entering

V = 100_000.0
WINDOW = lanes.window_of(None)
ENTRY = entering(0.0, V, WINDOW)
HERE, AWAY, THERE = "here.safetensors", "away.safetensors", "there.safetensors"


async def vtime(db: Database, account: str = LOCAL_ACCOUNT) -> float:
    row = await db.read(lambda tx: tx.one("SELECT vtime FROM lanes WHERE account_id = :id", {"id": account}))
    assert row is not None
    return float(row["vtime"])


async def start_tag(db: Database, backend_id: str) -> float:
    row = await db.read(
        lambda tx: tx.one("SELECT start_tag FROM backends WHERE id = :id", {"id": backend_id})
    )
    assert row is not None
    return float(row["start_tag"])


async def serves_others(db: Database, backend_id: str = "bck_1", v: float = V) -> None:
    """The backend's V moves on."""
    await db.write(
        lambda tx: tx.run("UPDATE backends SET start_tag = :v WHERE id = :id", {"v": v, "id": backend_id})
    )


async def goes_away(db: Database, backend_id: str) -> None:
    await db.write(
        lambda tx: backends.describe(
            tx, backend_id, worker_id=f"wrk-{backend_id}", state=BackendState.OFFLINE, now=2.0
        )
    )


# Whose V it is.


async def test_a_newcomer_waits_only_for_those_who_compete_for_the_same_backend(db: Database) -> None:
    """Ten share one backend, one has another to itself: V there runs far ahead."""
    crowd = [f"crowd_{n}" for n in range(10)]
    await add_accounts(db, *crowd, "alone", "late")
    shared, own = await add_backend(db, HERE), await add_backend(db, THERE, backend_id="bck_2")
    await put(db, *(new_job(account=name, model=HERE) for name in crowd for _ in range(5)))
    await put(db, *(new_job(account="alone", model=THERE, cost=100.0) for _ in range(30)))
    for n in range(30):
        assert await claim(db, own) is not None
        if n < 20:
            assert await claim(db, shared) is not None
    assert await start_tag(db, "bck_1") == 1.0
    assert await start_tag(db, "bck_2") == 2_900.0
    await put(db, new_job(account="late", model=HERE))
    assert await vtime(db, "late") == 0.0
    next_ones = [await claim(db, shared) for _ in range(11)]
    assert "late" in {one.account_id for one in next_ones if one is not None}


async def test_a_backends_v_is_the_greatest_start_tag_it_gave_out(db: Database) -> None:
    claimant = await add_backend(db)
    await put(db, new_job(cost=7.0), new_job(), new_job())
    for expected in (0.0, 7.0):
        assert await claim(db, claimant) is not None
        assert await start_tag(db, "bck_1") == expected
    await serves_others(db)
    assert await claim(db, claimant) is not None
    assert await start_tag(db, "bck_1") == V


async def test_of_several_backends_that_serve_a_lane_the_furthest_counts(db: Database) -> None:
    await add_accounts(db, "late")
    for n, v in enumerate((500.0, V, 700.0)):
        await add_backend(db, HERE, *([AWAY] * n), backend_id=f"bck_{n}")
        await serves_others(db, f"bck_{n}", v)
    await put(db, new_job(account="late", model=HERE))
    assert await vtime(db, "late") == ENTRY


async def test_a_lane_at_its_cap_enters_with_what_waits_in_it(db: Database) -> None:
    claimant = await add_backend(db, HERE)
    await add_backend(db, THERE, backend_id="bck_2")
    await put(db, new_job(model=HERE), new_job(model=HERE))
    await db.write(lambda tx: tx.run("UPDATE lanes SET cap = 1"))
    first = await claim(db, claimant)
    assert isinstance(first, claims.Claimed)
    await serves_others(db, "bck_2", 10 * V)
    await serves_others(db)
    await db.write(lambda tx: transitions.storing(tx, first.fence))
    assert await vtime(db) == ENTRY


async def test_a_job_that_is_queued_again_lets_an_empty_lane_enter_with_its_need(db: Database) -> None:
    claimant = await add_backend(db, HERE)
    await add_backend(db, THERE, backend_id="bck_2")
    await put(db, new_job(model=HERE))
    first = await claim(db, claimant)
    assert isinstance(first, claims.Claimed)
    await serves_others(db, "bck_2", 10 * V)
    await serves_others(db)
    await db.write(lambda tx: transitions.requeue(tx, first.fence, reason="lost", now=2.0))
    assert await vtime(db) == ENTRY


# Backends that go and come.


async def test_a_lane_whose_backend_comes_enters_anew(db: Database) -> None:
    await add_backend(db, HERE)
    await add_backend(db, AWAY, backend_id="bck_2")
    await serves_others(db, "bck_2")
    await goes_away(db, "bck_2")
    await put(db, new_job(model=AWAY))
    assert await vtime(db) == 0
    await comes_with(db, "bck_2", AWAY)
    assert await vtime(db) == ENTRY


async def test_a_lane_that_another_backend_served_all_along_stays_where_it_is(db: Database) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=AWAY), new_job(model=HERE))
    await serves_others(db)
    await add_backend(db, AWAY, backend_id="bck_2")
    await serves_others(db, "bck_2")
    await put(db, new_job(model=AWAY), new_job(model=HERE))
    assert await vtime(db) == 0


@pytest.mark.parametrize("served_by", ["offline", "removed"])
async def test_who_does_not_take_work_serves_nobody(db: Database, served_by: str) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=HERE))
    if served_by == "offline":
        await goes_away(db, "bck_1")
    else:
        await db.write(lambda tx: backends.remove(tx, "bck_1", 2.0))
    await add_backend(db, THERE, backend_id="bck_2")
    await serves_others(db, "bck_2")
    await comes_with(db, "bck_2", HERE, THERE)
    assert await vtime(db) == ENTRY


async def test_a_backend_that_says_again_what_it_has_moves_nobody(db: Database) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=HERE))
    await serves_others(db)

    async def describe_again(tx: Tx) -> None:
        await lanes.admit(tx, "bck_1", inventory_of_checkpoints(HERE).hash)
        await lanes.admit(tx, "bck_1", inventory_of_checkpoints(HERE, "another.safetensors").hash)

    await db.write(describe_again)
    assert await vtime(db) == 0
    assert await start_tag(db, "bck_1") == V


async def test_a_lane_that_only_waited_for_an_absent_model_enters_with_its_next_job(
    db: Database,
) -> None:
    await add_backend(db, HERE)
    await put(db, new_job(model=AWAY))
    await serves_others(db)
    await put(db, new_job(model=HERE))
    assert await vtime(db) == ENTRY


async def test_a_backend_without_a_past_gives_nobody_an_advantage(db: Database) -> None:
    """What only it serves competes with what others serve too, from where those are."""
    await add_accounts(db, "busy")
    await add_backend(db, HERE)
    await put(db, new_job(account="busy", model=HERE), new_job(model=AWAY))
    await serves_others(db)
    await add_backend(db, HERE, AWAY, backend_id="bck_2")
    assert await start_tag(db, "bck_2") == V
    assert await vtime(db) == ENTRY
    assert await vtime(db, "busy") == 0


@pytest.mark.parametrize(
    ("waiting", "expected"), [((HERE, THERE), 500.0), ((HERE,), V), ((THERE,), 500.0), ((), V)]
)
async def test_a_backend_that_comes_sends_no_newcomer_behind_those_who_wait(
    db: Database, waiting: tuple[str, ...], expected: float
) -> None:
    await add_accounts(db, "known")
    await add_backend(db, HERE)
    await add_backend(db, THERE, backend_id="bck_2")
    known = await put(db, *(new_job(account="known", model=model) for model in (HERE, THERE)))
    await put(db, *(new_job(model=model) for model in waiting))
    await serves_others(db)
    await serves_others(db, "bck_2", 500.0)
    for job_id in known:
        await db.write(lambda tx: transitions.cancel(tx, "known", job_id, now=2.0))  # noqa: B023
    await add_backend(db, HERE, THERE, AWAY, backend_id="bck_3")
    assert await start_tag(db, "bck_3") == expected


@pytest.mark.parametrize("state", ["online", "offline"])
async def test_backends_that_are_alike_go_on_together(db: Database, state: str) -> None:
    """Also while their models change, one after the other."""
    for n in (1, 2):
        await add_backend(db, HERE, backend_id=f"bck_{n}")
    await put(db, new_job(model=AWAY))
    await serves_others(db, "bck_2")
    if state == "offline":
        await goes_away(db, "bck_2")
    await comes_with(db, "bck_1", AWAY)
    assert await vtime(db) == ENTRY
    await add_backend(db, AWAY, backend_id="bck_3")
    assert await start_tag(db, "bck_3") == V
