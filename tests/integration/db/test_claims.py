"""Claims, fences and counters, on the real tables."""

from tests.support.rows import add_accounts, add_backend, claim, drift, new_job, put

from comfy_api_service.db import claims, counters, lanes, transitions, work
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import JobError, State
from comfy_api_service.domain.scheduling import entering
from comfy_api_service.domain.submission import JobOptions

WORKER = "wrk-bck_1"


async def test_a_claim_takes_priority_then_age_and_raises_the_attempt(db: Database) -> None:
    claimant = await add_backend(db)
    old, new, urgent = await put(
        db, new_job(at=1.0), new_job(at=2.0), new_job(at=3.0, options=JobOptions(priority=5))
    )
    for expected in (urgent, old, new):
        claimed = await claim(db, claimant)
        assert claimed is not None
        assert (claimed.job_id, claimed.attempt) == (expected, 1)
    assert await claim(db, claimant) is None
    assert await drift(db) == []


async def test_only_a_backend_that_has_the_model_claims_the_job(db: Database) -> None:
    one = await add_backend(db, "one.safetensors", backend_id="bck_1")
    two = await add_backend(db, "two.safetensors", backend_id="bck_2")
    (job_id,) = await put(db, new_job(model="two.safetensors"))
    assert await claim(db, one) is None
    claimed = await claim(db, two)
    assert claimed is not None
    assert claimed.job_id == job_id


async def test_a_need_that_comes_before_its_backend_is_found_by_it(db: Database) -> None:
    (job_id,) = await put(db, new_job(model="late.safetensors"))
    claimant = await add_backend(db, "late.safetensors")
    claimed = await claim(db, claimant)
    assert claimed is not None
    assert claimed.job_id == job_id


async def test_an_account_at_its_cap_waits_and_goes_on_when_it_has_room(db: Database) -> None:
    claimant = await add_backend(db)
    await put(db, new_job(), new_job())
    await db.write(lambda tx: tx.run("UPDATE lanes SET cap = 1"))
    first = await claim(db, claimant)
    assert first is not None
    assert await claim(db, claimant) is None
    fence = first.fence
    assert await db.write(lambda tx: transitions.storing(tx, fence))
    assert await claim(db, claimant) is not None, "storing gives the slot back"
    assert await drift(db) == []


async def test_jobs_for_an_offline_model_hold_up_nobody(db: Database) -> None:
    claimant = await add_backend(db)
    await put(db, *(new_job(model="gone.safetensors") for _ in range(5)))
    (job_id,) = await put(db, new_job())
    claimed = await claim(db, claimant)
    assert claimed is not None
    assert claimed.job_id == job_id


async def test_what_ran_out_of_memory_goes_elsewhere_if_anybody_else_can(db: Database) -> None:
    small, large = await add_backend(db, backend_id="bck_1"), await add_backend(db, backend_id="bck_2")
    await add_accounts(db, "a", "b")
    heavy, behind = await put(db, new_job(account="a"), new_job(account="a"))
    (others,) = await put(db, new_job(account="b"))
    error = JobError(Code.OUT_OF_MEMORY, "…")

    async def runs_out(fence: Fence) -> None:
        assert await db.write(
            lambda tx: transitions.requeue(
                tx, fence, reason="out of memory", now=1_000.0, out_of_memory=error
            )
        )

    first = await claim(db, small)
    assert first is not None
    assert first.job_id == heavy
    await runs_out(first.fence)
    goes_on = await claim(db, small)
    assert goes_on is not None
    assert goes_on.job_id == others, "nobody else waits for it"
    assert await claim(db, small) is None
    for state in ("state = 'offline'", "draining = 1", "removed_at = 1"):
        alone = f"UPDATE backends SET {state} WHERE id = 'bck_2'"
        again = await db.write(lambda tx: _only_tried(tx, alone, small))  # noqa: B023
        assert again == heavy, "rather here than nowhere"
    for now, heads in ((1_059.0, []), (1_061.0, [heavy])):
        ready = await db.read(lambda tx: claims.ready_lanes(tx, small, now))  # noqa: B023
        assert [need.head for lane in ready for need in lane.needs] == heads, "not for ever"
    second = await claim(db, large)
    assert second is not None
    assert (second.job_id, second.attempt) == (heavy, 2)
    after = await claim(db, small)
    assert after is not None
    assert after.job_id == behind
    assert await drift(db) == []


async def _only_tried(tx: Tx, first: str, claimant: claims.Claimant) -> str | None:
    """Which job would be next after this statement; both are undone."""
    before = await tx.one("SELECT state, draining, removed_at FROM backends WHERE id = 'bck_2'")
    assert before is not None
    await tx.run(first)
    ready = await claims.ready_lanes(tx, claimant, 1_001.0)
    await tx.run(
        "UPDATE backends SET state = :state, draining = :draining, removed_at = :removed WHERE id = 'bck_2'",
        {"state": before["state"], "draining": before["draining"], "removed": before["removed_at"]},
    )
    return ready[0].needs[0].head if ready else None


async def test_a_replaced_attempt_changes_nothing(db: Database) -> None:
    claimant = await add_backend(db)
    (job_id,) = await put(db, new_job())
    first = await claim(db, claimant)
    assert first is not None
    stale = Fence(job_id, 1, WORKER)
    assert await db.write(lambda tx: transitions.requeue(tx, stale, reason="worker lost", now=2.0))
    second = await claim(db, claimant)
    assert second is not None
    assert second.attempt == 2
    assert second.prompt_id != first.prompt_id
    late = Ending(State.SUCCEEDED, values={"1": ["x"]})
    assert await db.write(lambda tx: transitions.started(tx, stale, now=3.0)) is None
    assert await db.write(lambda tx: transitions.finish(tx, stale, late, now=3.0)) is None
    assert await db.write(lambda tx: transitions.requeue(tx, stale, reason="again", now=3.0)) is None
    assert not await db.write(lambda tx: transitions.storing(tx, stale))
    current = Fence(job_id, 2, WORKER)
    assert await db.write(lambda tx: transitions.finish(tx, current, late, now=4.0)) is not None
    assert await db.write(lambda tx: transitions.finish(tx, current, late, now=5.0)) is None, "ends once"
    prompts = [first.prompt_id, second.prompt_id, "another"]
    known = await db.read(lambda tx: work.closed_among(tx, prompts))
    assert known == {first.prompt_id: True, second.prompt_id: True}
    assert await drift(db) == []


async def test_a_lost_attempt_gives_its_virtual_time_back(db: Database) -> None:
    claimant = await add_backend(db)
    await put(db, new_job(cost=30.0), new_job(cost=30.0))
    claimed = await claim(db, claimant)
    assert claimed is not None

    async def vtime(tx: Tx) -> float:
        row = await tx.one("SELECT vtime FROM lanes")
        assert row is not None
        return float(row["vtime"])

    charged = await db.write(vtime)
    assert charged == 30.0
    await db.write(lambda tx: transitions.requeue(tx, claimed.fence, reason="lost", now=2.0, unsent=True))
    assert await db.write(vtime) == 0.0


async def test_the_least_served_account_goes_first(db: Database) -> None:
    claimant = await add_backend(db)
    await add_accounts(db, "a", "b")
    await put(db, *(new_job(account="a") for _ in range(3)), *(new_job(account="b") for _ in range(3)))
    taken = [await claim(db, claimant) for _ in range(6)]
    assert [one.account_id for one in taken if one] == ["a", "b", "a", "b", "a", "b"]


async def newcomer(db: Database, claimant: claims.Claimant) -> bool:
    (lane,) = await db.read(lambda tx: claims.ready_lanes(tx, claimant, 0.0))
    return lane.newcomer


async def test_a_job_that_is_queued_again_makes_no_newcomer(db: Database) -> None:
    claimant = await add_backend(db)
    (job_id,) = await put(db, new_job())
    assert await newcomer(db, claimant)
    assert await claim(db, claimant) is not None
    lost = await db.write(
        lambda tx: transitions.requeue(tx, Fence(job_id, 1, WORKER), reason="lost", now=2.0)
    )
    assert lost is not None
    assert not await newcomer(db, claimant)


async def test_who_canceled_before_anything_ran_is_still_a_newcomer(db: Database) -> None:
    claimant = await add_backend(db)
    canceled, _ = await put(db, new_job(), new_job())
    await db.write(lambda tx: transitions.give_up(tx, canceled, Ending(State.CANCELED), now=2.0))
    assert await newcomer(db, claimant)


async def test_nothing_is_saved_up_while_a_lane_is_empty(db: Database) -> None:
    claimant = await add_backend(db)
    await add_accounts(db, "late")
    await db.write(lambda tx: tx.run("UPDATE backends SET start_tag = 100000"))
    await put(db, new_job(account="late"))
    row = await db.read(lambda tx: tx.one("SELECT vtime FROM lanes WHERE account_id = 'late'"))
    assert row is not None
    assert row["vtime"] == entering(0.0, 100_000.0, lanes.window_of(None)) > 99_000
    assert await claim(db, claimant) is not None


async def test_the_reconciler_sees_and_mends_a_wrong_counter(db: Database) -> None:
    await put(db, new_job(), new_job(model="other.safetensors"))
    await db.write(lambda tx: tx.run("UPDATE lanes SET queued = 7"))
    await db.write(lambda tx: tx.run("DELETE FROM lane_needs"))
    assert {d.counter for d in await drift(db)} >= {"queued"}
    await db.write(counters.mend)
    assert await drift(db) == []
