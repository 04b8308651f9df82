"""Submissions that arrive together commit together, each answered and failing alone."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from tests.support.rows import door, new_job

from comfy_api_service.db import dispatch
from comfy_api_service.db import submissions as submissions_module
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.insertion import KeyReused, Outcome, QueueFull, Replay, Written
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.submission import JobOptions, NewJob


async def count(db: Database) -> int:
    row = await db.read(lambda tx: tx.one("SELECT count(*) AS n FROM jobs"))
    assert row is not None
    return int(row["n"])


async def test_what_arrives_together_is_one_transaction(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    outcomes = await asyncio.gather(*(submissions.add(new_job()) for _ in range(50)))
    places = [outcome.ordinal for outcome in outcomes if isinstance(outcome, Written)]
    assert places == list(range(1, 51))
    assert await count(db) == 50


async def test_a_submission_makes_no_work_for_those_who_deliver(db: Database, far: bool) -> None:
    """No webhook is told that a job was queued, even one that its job brought."""
    submissions = await door(db, far=far)
    told = JobOptions(webhook_url="https://example.com/hook")
    await asyncio.gather(*(submissions.add(new_job(options=told)) for _ in range(5)))
    assert not (await db.read(dispatch.look)).outbox


def noted(submissions: Submissions, patch: pytest.MonkeyPatch) -> tuple[list[int], asyncio.Event]:
    """The sizes of the groups that are written, and what tells that one is."""
    groups: list[int] = []
    writing = asyncio.Event()
    write = submissions._write

    async def noting(group: Sequence[tuple[NewJob, asyncio.Future[Outcome]]]) -> None:
        groups.append(len(group))
        writing.set()
        await write(group)

    patch.setattr(submissions, "_write", noting)
    return groups, writing


async def test_those_who_were_answered_are_waited_for_by_those_who_came_meanwhile(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves that arrive one after the other do not take turns for ever."""
    monkeypatch.setattr(submissions_module, "QUIET_SECONDS", 0.2)
    submissions = Submissions(db, queue_limit=1000)
    groups, writing = noted(submissions, monkeypatch)

    async def caller() -> None:
        for _ in range(4):
            await submissions.add(new_job())

    first = [asyncio.create_task(caller()) for _ in range(5)]
    await writing.wait()
    await asyncio.gather(*first, *(caller() for _ in range(5)))
    assert groups == [5, 10, 10, 10, 5]


async def test_a_few_who_come_early_wait_for_the_others(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction each for those who happen to be first costs more than the moment that they wait."""
    monkeypatch.setattr(submissions_module, "QUIET_SECONDS", 0.2)
    submissions = Submissions(db, queue_limit=1000)
    groups, _ = noted(submissions, monkeypatch)

    async def caller(rounds: int) -> None:
        await submissions.add(new_job())
        for _ in range(rounds):
            await asyncio.sleep(0)
        await submissions.add(new_job())

    await asyncio.gather(*(caller(rounds) for rounds in range(8)))
    assert groups[0] == 8
    assert min(groups[1:]) >= 4


async def test_a_row_that_breaks_its_group_fails_alone(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    broken = new_job(account="nobody")
    answers = await asyncio.gather(
        *(submissions.add(job) for job in (new_job(), broken, new_job())), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Written, LookupError, Written]
    assert await count(db) == 2


async def test_a_caller_that_leaves_cancels_nothing(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    task = asyncio.create_task(submissions.add(new_job()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await submissions.add(new_job())
    assert await count(db) == 2


async def test_nobody_waits_for_ever_and_what_was_not_begun_is_not_written(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions_module, "ANSWER_SECONDS", 0.2)
    submissions = Submissions(db, queue_limit=1000)
    held, free = threading.Event(), threading.Event()

    async def hold(tx: Tx) -> None:
        await tx.run("UPDATE lanes SET queued = queued")
        held.set()
        if tx.dialect.one_writer:
            free.wait()
        else:
            await asyncio.to_thread(free.wait)

    holder = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(held.wait)
    first = asyncio.create_task(submissions.add(new_job(key="begun")))
    await asyncio.sleep(0)  # its group is being written
    answers = await asyncio.gather(first, submissions.add(new_job()), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    free.set()
    await holder
    monkeypatch.undo()
    assert isinstance(await submissions.add(new_job(key="begun")), Replay)
    assert await count(db) == 1


async def test_the_same_key_twice_in_a_group_is_one_job(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    first, again, other = await asyncio.gather(
        submissions.add(new_job(key="k")),
        submissions.add(new_job(key="k")),
        submissions.add(new_job(key="k", fingerprint="another body")),
    )
    assert isinstance(first, Written)
    assert isinstance(again, Replay)
    assert isinstance(other, KeyReused)
    assert await count(db) == 1


async def test_a_key_is_forgotten_after_a_day(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    job = new_job(key="k", at=1_000.0)
    await submissions.add(job)
    late = new_job(key="k", fingerprint="another", at=1_000.0 + 86_401)
    assert isinstance(await submissions.add(late), Written)


async def test_the_queue_limit_counts_within_a_group(db: Database) -> None:
    submissions = Submissions(db, queue_limit=3)
    outcomes = await asyncio.gather(*(submissions.add(new_job()) for _ in range(5)))
    assert [type(outcome) for outcome in outcomes] == [Written] * 3 + [QueueFull] * 2


async def test_dedupe_within_a_group(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    merged = JobOptions(dedupe=True)
    first, again = await asyncio.gather(
        submissions.add(new_job(options=merged)), submissions.add(new_job(options=merged))
    )
    assert isinstance(first, Written)
    assert again == Replay(await _only(db), by_key=False)


async def _only(db: Database) -> str:
    row = await db.read(lambda tx: tx.one("SELECT id FROM jobs"))
    assert row is not None
    return str(row["id"])


async def test_a_need_that_was_forgotten_is_written_again(db: Database, far: bool) -> None:
    submissions = await door(db, far=far)
    assert isinstance(await submissions.add(new_job()), Written)
    await db.write(lambda tx: tx.run("DELETE FROM lane_needs"))
    await db.write(lambda tx: tx.run("DELETE FROM requirements"))
    assert isinstance(await submissions.add(new_job()), Written)
    row = await db.read(lambda tx: tx.one("SELECT count(*) AS count FROM requirements"))
    assert row is not None
    assert row["count"] == 1
