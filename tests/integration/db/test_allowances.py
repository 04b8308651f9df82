"""What an account may still submit, decided where the job is written: never more, whoever writes at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.rows import (
    Pair,
    add_accounts,
    add_backend,
    claim,
    door,
    new_job,
    put,
    until_somebody_waits,
)

from comfy_api_service.db.allowances import QuotaSpent, WaitingFull
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.insertion import Outcome, Replay, Written, insert
from comfy_api_service.db.transitions import finish, started
from comfy_api_service.domain.job import State
from comfy_api_service.domain.submission import NewJob
from comfy_api_service.domain.tiers import Limits

DAY = 86_400.0
TEN = Limits(images_per_day=10)


def limited(limits: Limits, *, images: int = 1, **given: Any) -> NewJob:
    return new_job(**given)._replace(limits=limits, images=images)


async def test_no_more_than_the_day_allows_whoever_writes_at_once(
    both: Pair, far: bool, tmp_path: Path
) -> None:
    doors = [await door(db, far=far) for db in both]
    sent = [limited(TEN, fingerprint=str(n)) for n in range(500)]
    outcomes = await asyncio.gather(*(doors[n % 2].add(job) for n, job in enumerate(sent)))
    taken = [job.id for job, one in zip(sent, outcomes, strict=True) if isinstance(one, Written)]
    assert len(taken) == 10
    assert {type(one) for one in outcomes} == {Written, QuotaSpent}
    check(tmp_path, taken, all_ended=False)


@pytest.mark.parametrize("limits", [Limits(waiting=1), Limits(images_per_day=1)], ids=["waiting", "day"])
async def test_who_is_refused_again_waits_for_nobody(both: Pair, limits: Limits) -> None:
    """As long as somebody has the lane, who is refused would else hold up all who claim, and wait himself."""
    one, two = both
    entry = await door(one, far=True)
    assert isinstance(await entry.add(limited(limits, fingerprint="1")), Written)
    refused = await entry.add(limited(limits, fingerprint="2"))
    assert isinstance(refused, WaitingFull | QuotaSpent)
    has_it, lets_go = asyncio.Event(), asyncio.Event()

    async def keep_the_lane(tx: Tx) -> None:
        await tx.run("UPDATE lanes SET cap = cap")
        has_it.set()
        await lets_go.wait()

    keeper = asyncio.create_task(two.write(keep_the_lane))
    await has_it.wait()
    try:
        again = [await entry.add(limited(limits, fingerprint=str(n))) for n in range(3, 9)]
    finally:
        lets_go.set()
        await keeper
    assert again == [refused] * 6


async def test_who_is_not_refused_any_more_enters_and_replays_are_told(both: Pair) -> None:
    """After a refusal what is committed is looked at first: it must say what the lanes' lock would."""
    entry = await door(both[0], far=True)
    one = Limits(waiting=1)
    first = limited(one, fingerprint="1", key="first")
    assert isinstance(await entry.add(first), Written)
    for _ in range(2):
        assert isinstance(await entry.add(limited(one, fingerprint="2", key="second")), WaitingFull)
        assert await entry.add(limited(one, fingerprint="1", key="first")) == Replay(first.id, by_key=True)
    assert isinstance(await entry.add(limited(one, fingerprint="3")), WaitingFull)
    wider = Limits(waiting=3)
    group = [limited(wider, fingerprint=str(n), key="same" if n < 6 else None) for n in (5, 5, 6, 7)]
    outcomes = await asyncio.gather(*(entry.add(job) for job in group))
    assert [type(one) for one in outcomes] == [Written, Replay, Written, WaitingFull]


@pytest.mark.parametrize("before", [0, 3], ids=["first of the day", "later"])
async def test_what_was_taken_while_the_lane_was_waited_for_counts(both: Pair, before: int) -> None:
    one, two = both
    await add_accounts(one, "other")
    other = new_job(account="other")
    await put(one, other)
    known = {other.requirement.id}  # written already, so that it is the lane that is waited for
    if before:
        await one.write(
            lambda tx: insert(tx, [limited(TEN, images=before)], queue_limit=100, known_needs=known)
        )
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(tx: Tx) -> list[Outcome]:
        outcomes = await insert(tx, [limited(TEN, images=9 - before)], queue_limit=100, known_needs=known)
        entered.set()
        await go.wait()
        return outcomes

    first = asyncio.create_task(one.write(slow))
    await entered.wait()
    second = asyncio.create_task(
        two.write(lambda tx: insert(tx, [limited(TEN, images=2)], queue_limit=100, known_needs=known))
    )
    await until_somebody_waits(one)
    go.set()
    assert isinstance((await first)[0], Written)
    assert await second == [QuotaSpent(used=9, limit=10, images=2)]


async def test_images_not_jobs_are_counted_and_a_smaller_one_may_fit(db: Database) -> None:
    jobs = [
        limited(TEN, images=4),
        limited(TEN, images=4),
        limited(TEN, images=4),
        limited(TEN, images=2),
        limited(TEN),
    ]
    outcomes = await db.write(lambda tx: insert(tx, jobs, queue_limit=100))
    assert [type(one) for one in outcomes] == [Written, Written, QuotaSpent, Written, QuotaSpent]
    assert outcomes[2] == QuotaSpent(used=8, limit=10, images=4)
    assert outcomes[4] == QuotaSpent(used=10, limit=10, images=1)


async def test_the_next_day_is_another(db: Database) -> None:
    for day in (0, 1):
        jobs = [
            limited(TEN, images=10, at=DAY * 20_000 + DAY * day + 86_399.0),
            limited(TEN, at=DAY * (20_000 + day)),
        ]
        outcomes = [await db.write(lambda tx, job=job: insert(tx, [job], queue_limit=100)) for job in jobs]  # type: ignore[misc]
        assert [type(one) for (one,) in outcomes] == [Written, QuotaSpent]


async def test_what_came_to_nothing_is_given_back_and_what_was_made_is_not(db: Database) -> None:
    for state, produced, left in ((State.FAILED, 0, True), (State.SUCCEEDED, 1, False)):
        at = 1_000.0 if state is State.FAILED else 1_000.0 + DAY
        (job,) = [limited(Limits(images_per_day=1), at=at)]
        await db.write(lambda tx, job=job: insert(tx, [job], queue_limit=100))  # type: ignore[misc]
        claimant = await add_backend(db)
        claimed = await claim(db, claimant)
        assert claimed is not None
        await db.write(lambda tx, one=claimed: started(tx, one.fence, now=2.0))  # type: ignore[misc]
        ending = Ending(state, produced=produced)
        await db.write(lambda tx, one=claimed, how=ending: finish(tx, one.fence, how, now=3.0))  # type: ignore[misc]
        again = limited(Limits(images_per_day=1), at=at)
        (outcome,) = await db.write(lambda tx, job=again: insert(tx, [job], queue_limit=100))  # type: ignore[misc]
        assert isinstance(outcome, Written) is left
        if left:
            taken = await claim(db, claimant)
            assert taken is not None
            await db.write(lambda tx, one=taken: finish(tx, one.fence, Ending(State.FAILED), now=3.0))  # type: ignore[misc]


async def test_as_many_wait_as_may_and_a_replay_needs_no_room(db: Database) -> None:
    two = Limits(waiting=2)
    first = limited(two, key="k", fingerprint="a")
    jobs = [first, limited(two), limited(two), limited(two, key="k", fingerprint="a")]
    outcomes = await db.write(lambda tx: insert(tx, jobs, queue_limit=100))
    assert [type(one) for one in outcomes] == [Written, Written, WaitingFull, Replay]
    assert outcomes[2] == WaitingFull(waiting=2, limit=2)
    assert await claim(db, await add_backend(db)) is not None
    outcomes = await db.write(lambda tx: insert(tx, [limited(two), limited(two)], queue_limit=100))
    assert [type(one) for one in outcomes] == [Written, WaitingFull]


async def test_results_are_kept_as_long_as_the_account_had_it_when_it_submitted(db: Database) -> None:
    job = limited(Limits(retention=500.0))
    await db.write(lambda tx: insert(tx, [job], queue_limit=100))
    claimed = await claim(db, await add_backend(db))
    assert claimed is not None
    ending = Ending(State.SUCCEEDED, produced=1, expires_at=999_999.0)
    await db.write(lambda tx: finish(tx, claimed.fence, ending, now=3_000.0))
    row = await db.read(lambda tx: tx.one("SELECT expires_at FROM jobs WHERE id = :id", {"id": job.id}))
    assert row is not None
    assert row["expires_at"] == 3_500.0
