"""A group in one call of the server: to the same effect as step by step, row for row, or not at all."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import asyncpg
import pytest
from tests.support.checker import check
from tests.support.cutting_proxy import Cut, proxied
from tests.support.postgres import PostgresServer
from tests.support.rows import (
    Pair,
    add_accounts,
    door,
    drift,
    need,
    new_job,
    put,
    until_somebody_waits,
)
from tests.support.schema import url_of
from tests.support.twins import MODELS, NAMES, NEEDS, contents

from comfy_api_service.db import entry, insertion, submissions
from comfy_api_service.db.base import CommitUnknown, Database, Tx
from comfy_api_service.db.insertion import Outcome, Replay, Written, insert
from comfy_api_service.db.keys import KEY_SECONDS
from comfy_api_service.db.postgres import DIALECT, PostgresDatabase
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_job_id
from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.domain.submission import JobOptions, NewJob
from comfy_api_service.domain.tiers import UNLIMITED, Limits
from comfy_api_service.domain.upload import JobInput

TABLES: Final = {
    "jobs": "id",
    "job_labels": "job_id, key",
    "events": "job_id, seq",
    "outbox": "id",
    "ledger": "job_id",
    "usage_days": "account_id, day",
    "idempotency_keys": "account_id, key",
    "lanes": "account_id",
    "lane_needs": "account_id, requirement_id",
}
"""What a group of submissions writes, and in which order it is compared."""


async def call(db: Database, *jobs: NewJob) -> list[Written] | None:
    return await db.write(lambda tx: entry.enter(tx, jobs), single=True)


async def rows(db: Database) -> dict[str, list[dict[str, Any]]]:
    return await contents(db, TABLES)


# --- the same effect -------------------------------------------------------------------------------------


def any_job(chance: random.Random, number: int) -> NewJob:
    def maybe(value: Any) -> Any:
        return chance.choice((None, value))

    return NewJob(
        id=new_job_id(),
        account_id=chance.choice(NAMES),
        requirement=NEEDS[chance.choice(sorted(NEEDS))],
        graph=maybe({"1": {"class_type": "Ä", "inputs": {"seed": number}}}),
        params={"prompt": "a \\ lighthouse, \u0001 'quoted' \"twice\"", "seed": number},
        options=JobOptions(
            priority=chance.randint(-10, 10),
            deadline=maybe(chance.random() * 100),
            max_attempts=chance.randint(1, 5),
            labels=maybe({"team": "Ä'\"\\", "n": str(number)}) or {},
            webhook_url=maybe("https://example.com/hook"),
            output=chance.choice((OutputOptions(), OutputOptions(quality=80, files=4))),
        ),
        images=chance.randint(0, 4),
        cost=chance.random() * 10 ** chance.randint(-3, 3),
        timing_key=f"kind {chance.randint(1, 3)}",
        queued_at=1_000.0 + number + chance.random(),
        fingerprint=f"print {chance.randint(1, 3)}",
        idempotency_key=maybe(chance.choice(("key", "Key", "ä", "\U0001f511")) + str(number)),
        batch_id=None,
        batch_index=None,
        limits=chance.choice((UNLIMITED, Limits(images_per_day=10**6, waiting=10**6, retention=5.0))),
        workflow=maybe(("wfl_1", chance.randint(1, 9))),
        trace_context=maybe(f"00-{chance.getrandbits(127):032x}-{chance.getrandbits(63):016x}-01"),
        pixel_steps=1.0,
        inputs=(),
    )


def test_what_is_compared_is_all_that_a_job_may_bring() -> None:
    """A field that always has its default would be equal on both sides also if one of them forgot it."""
    chance = random.Random(0)
    jobs = [any_job(chance, number) for number in range(50)]
    varied = {field for field in NewJob._fields if len({repr(getattr(job, field)) for job in jobs}) > 1}
    not_written = {"pixel_steps"}
    never_common = {"inputs", "batch_id", "batch_index"}
    assert varied == set(NewJob._fields) - not_written - never_common


CHANGES: Final = (
    "UPDATE lanes SET vtime = {much}",
    "UPDATE lanes SET queued = 0, queued_cost = 0 WHERE account_id < 'b'",
    "UPDATE backends SET start_tag = {much} WHERE id = 'bck_1'",
    "UPDATE backends SET start_tag = {much} WHERE id = 'bck_2'",
    "UPDATE backends SET state = 'offline'",
    "UPDATE backends SET state = 'offline' WHERE id = 'bck_1'",
    "UPDATE backends SET state = 'online', removed_at = NULL",
    "UPDATE backends SET removed_at = 1 WHERE id = 'bck_2'",
    "UPDATE backends SET removed_at = 1 WHERE id = 'bck_1'",
    "DELETE FROM lane_needs WHERE requirement_id LIKE '%two%'",
    "DELETE FROM timings",
    """INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('all', 1, {few}, 0)
       ON CONFLICT (key) DO UPDATE SET seconds = {few}""",
    "UPDATE jobs SET state = 'executing', started_at = 900 + {few} WHERE ordinal % 5 = 0",
    "UPDATE jobs SET state = 'dispatched' WHERE ordinal % 7 = 0",
    "DELETE FROM lane_needs WHERE requirement_id LIKE '%one%'",
    "UPDATE lane_needs SET queued = 0 WHERE requirement_id LIKE '%two%'",
)
"""What others do between groups."""


def rounded(outcomes: Sequence[Outcome] | None) -> list[Outcome]:
    """What backends have to do is summed up in whatever order the rows stand."""
    assert outcomes is not None
    return [
        one._replace(open_seconds=round(one.open_seconds, 6)) if isinstance(one, Written) else one
        for one in outcomes
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_group_both_ways_write_the_same(twins: Pair, seed: int) -> None:
    by_steps, by_call = twins
    chance = random.Random(seed)
    number = 0
    for _ in range(12):
        for change in chance.sample(CHANGES, 3):
            sql = change.format(much=chance.random() * 1_000, few=chance.random() * 30)
            for db in twins:
                await db.write(lambda tx: tx.run(sql))  # noqa: B023
        jobs = [any_job(chance, number + n) for n in range(chance.randint(1, 30))]
        number += len(jobs)
        assert entry.is_common(jobs, NEEDS)
        taken = await by_steps.write(
            lambda tx: insert(tx, jobs, queue_limit=10**9, far_from_limit=True, known_needs=NEEDS)  # noqa: B023
        )
        assert rounded(await call(by_call, *jobs)) == rounded(taken)
        first, second = await rows(by_steps), await rows(by_call)
        for table in TABLES:
            assert second[table] == first[table], table


async def test_a_lane_whose_jobs_wait_for_a_backend_that_was_removed_enters_anew(twins: Pair) -> None:
    for db in twins:
        await put(db, new_job(model=MODELS[0])._replace(id="job_1"))
        await db.write(lambda tx: tx.run("UPDATE backends SET removed_at = 1 WHERE id = 'bck_1'"))
        await db.write(lambda tx: tx.run("UPDATE backends SET start_tag = 1e6 WHERE id = 'bck_2'"))
    by_steps, by_call = twins
    job = new_job(model=MODELS[1])
    await put(by_steps, job)
    await call(by_call, job)
    lanes = [(await rows(db))["lanes"] for db in twins]
    assert lanes[0] == lanes[1]
    assert max(lane["vtime"] for lane in lanes[1]) > 900_000


# --- or none ---------------------------------------------------------------------------------------------


async def refuses(db: PostgresDatabase, *jobs: NewJob) -> None:
    """Nothing is done, and nothing left behind."""
    before = await rows(db)
    assert await call(db, *jobs) is None
    assert await rows(db) == before


async def test_a_key_that_was_used_within_a_day_goes_step_by_step(both: Pair) -> None:
    (db, _), now = both, 5_000.0
    await put(db, new_job(key="k", at=now))
    late = now + KEY_SECONDS
    await refuses(db, new_job(at=late - 0.001), new_job(key="k", at=late - 0.001))
    assert await call(db, new_job(key="k", at=late)) is not None
    await refuses(db, new_job(key="k", at=late))


async def test_who_might_meet_a_limit_goes_step_by_step(both: Pair) -> None:
    db, _ = both
    await add_accounts(db, "acc")
    await put(db, new_job(account="acc")._replace(images=3), new_job())

    def two(limits: Limits) -> list[NewJob]:
        return [new_job(account=name)._replace(images=2, limits=limits)
                for name in ("acc", LOCAL_ACCOUNT, "acc")]  # fmt: skip

    await refuses(db, *two(Limits(waiting=2)))
    await refuses(db, *two(Limits(images_per_day=6)))
    mixed = two(Limits(waiting=3, images_per_day=7))
    assert await call(db, mixed[0], mixed[1], mixed[2]._replace(limits=UNLIMITED)) is not None
    await refuses(db, new_job(account="acc")._replace(limits=Limits(waiting=3)))
    await refuses(db, new_job(account="acc")._replace(images=0, limits=Limits(images_per_day=6)))
    assert await drift(db) == []


async def test_what_is_not_there_any_more_goes_step_by_step(both: Pair) -> None:
    db, _ = both
    await put(db, new_job())
    await refuses(db, new_job(), new_job(account="nobody"))
    await refuses(db, new_job(), new_job(model="unknown"))


def test_what_is_known_to_need_steps_is_not_tried() -> None:
    one = new_job(key="k")
    assert entry.is_common([one, new_job(key="K"), new_job(account="acc", key="k")], NEEDS)
    for other in (
        new_job(key="k"),
        new_job(options=JobOptions(dedupe=True)),
        new_job(model="unknown"),
        new_job()._replace(inputs=(JobInput("1", "image", "upl_1"),)),
        new_job()._replace(batch_id="bat_1"),
        new_job(at=86_400.0),
    ):
        assert not entry.is_common([one, other], NEEDS)


# --- beside others ---------------------------------------------------------------------------------------


def watched(patch: pytest.MonkeyPatch) -> list[str]:
    """The ways that groups take, in order; a call that does nothing is `refused`."""
    ways: list[str] = []
    enter, by_steps = entry.enter, insertion.insert

    async def entering(tx: Tx, jobs: Sequence[NewJob]) -> list[Written] | None:
        written = await enter(tx, jobs)
        ways.append("refused" if written is None else "call")
        return written

    async def inserting(*args: Any, **options: Any) -> list[Outcome]:
        ways.append("steps")
        return await by_steps(*args, **options)

    patch.setattr(entry, "enter", entering)
    patch.setattr(submissions, "insert", inserting)
    return ways


async def test_a_group_takes_one_call_and_more_only_if_it_must(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = watched(monkeypatch)
    opened = Submissions(both[0], queue_limit=100, far_from_limit=lambda: True)
    for job in (new_job(), new_job(key="k"), new_job(key="k"), new_job(key="k2")):
        await opened.add(job)
    near = Submissions(both[0], queue_limit=100)
    near._known_needs.add(need().id)
    await near.add(new_job())
    assert ways == ["steps", "call", "refused", "steps", "call", "steps"]


KEY: Final = """INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
VALUES ('{0}', '{1}', 'print', 'job', 1000)"""
LANE: Final = "SELECT 1 FROM lanes WHERE account_id = '{0}' FOR NO KEY UPDATE"


@pytest.mark.parametrize(
    ("held", "free"),
    [
        (KEY.format("a", "k"), (KEY.format("a", "z"), KEY.format("b", "a"), LANE.format("a"))),
        (LANE.format("a"), (LANE.format("b"),)),
    ],
    ids=["keys", "lanes"],
)
async def test_locks_are_taken_in_the_order_of_all_who_write(
    both: Pair, tmp_path: Path, held: str, free: Sequence[str]
) -> None:
    """Who waits for the first holds none of those that come behind it."""
    db, _ = both
    await add_accounts(db, "a", "b")
    await put(db, new_job())
    jobs = [new_job(account="b", key="a"), new_job(account="a", key="z"), new_job(account="a", key="k")]
    other = await asyncpg.connect(url_of(tmp_path))
    await other.execute("SET lock_timeout = '100ms'; BEGIN")
    await other.execute(held)
    waiting = asyncio.create_task(call(db, *jobs))
    await until_somebody_waits(db)
    for statement in free:
        await other.execute(statement)
    await other.execute("ROLLBACK")
    assert await waiting is not None
    await other.close()


async def test_what_others_wrote_while_the_lane_was_waited_for_counts(both: Pair) -> None:
    one, two = both
    await put(one, new_job())
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(tx: Tx) -> None:
        await insert(tx, [new_job()._replace(images=4) for _ in range(2)], queue_limit=100, known_needs=NEEDS)
        entered.set()
        await go.wait()

    outcomes = []
    for limits in (Limits(images_per_day=10), Limits(waiting=4), UNLIMITED):
        entered.clear()
        go.clear()
        first = asyncio.create_task(one.write(slow))
        await entered.wait()
        second = asyncio.create_task(call(two, new_job()._replace(images=2, limits=limits)))
        await until_somebody_waits(one)
        go.set()
        await first
        outcomes.append(await second)
    assert outcomes[:2] == [None, None]
    assert [one.ordinal for one in outcomes[2] or ()] == [8]
    assert await drift(one) == []


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("cut", list(Cut))
async def test_a_call_whose_answer_was_lost_is_there_once(
    postgres: PostgresServer, tmp_path: Path, cut: Cut
) -> None:
    url = url_of(tmp_path)
    assert url is not None
    async with proxied(postgres.port) as proxy:
        address = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        through = await PostgresDatabase.open(address, application="tests", connections=2)
        opened = await door(through, far=True)
        before = await opened.add(new_job())
        jobs = [new_job(), new_job(key="k"), new_job(key="other")]
        proxy.cut_at(jobs[0].id.encode(), cut)
        outcomes = await asyncio.gather(*(opened.add(job) for job in jobs))
        assert proxy.cuts == 1
        assert [one.ordinal for one in (before, *outcomes) if isinstance(one, Written)] == [1, 2, 3, 4]
        assert await opened.add(jobs[1]._replace(id=new_job_id())) == Replay(jobs[1].id, by_key=True)
        await through.close()
    check(tmp_path, [job.id for job in jobs], all_ended=False)


async def test_a_call_that_the_server_gave_up_is_not_in_doubt(both: Pair) -> None:
    """It was rolled back, as the server says: nobody needs to look whether it is there."""

    async def slow(tx: Tx) -> None:
        await tx.one("SELECT set_config('statement_timeout', '10ms', false)")
        await tx.one("SELECT pg_sleep(60)")

    with pytest.raises(Unavailable) as raised:
        await both[0].write(slow, single=True)
    assert not isinstance(raised.value, CommitUnknown)


# --- two groups under way --------------------------------------------------------------------------------


class Line:
    """Groups of a door whose database answers when it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self._answers: list[asyncio.Event] = []
        self.door = Submissions(cast("Database", SimpleNamespace(dialect=DIALECT)), queue_limit=1000)
        patch.setattr(self.door, "_enter", self._enter)

    async def _enter(self, jobs: Sequence[NewJob]) -> list[Outcome]:
        self.sizes.append(len(jobs))
        self._answers.append(asyncio.Event())
        await self._answers[-1].wait()
        return [Written(1, 1.0, 0, 0.0, 0.0) for _ in jobs]

    def callers(self, count: int) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._caller()) for _ in range(count)]

    async def _caller(self) -> None:
        for _ in range(3):
            await self.door.add(new_job())

    async def answer(self, number: int) -> None:
        self._answers[number].set()
        await self.quiet()

    async def quiet(self) -> None:
        """All that can be done without another answer is done."""
        for _ in range(20):
            await asyncio.sleep(0)


async def test_the_next_group_leaves_before_the_one_under_way_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch)
    callers = line.callers(80)
    await line.quiet()
    assert line.sizes == [40, 40]
    await line.answer(1)
    assert line.sizes == [40, 40, 40]
    await line.answer(2)
    assert line.sizes == [40, 40, 40, 40]
    await line.answer(0)
    assert line.sizes == [40, 40, 40, 40, 40]
    for task in callers:
        task.cancel()


async def test_no_more_groups_are_under_way_than_two_and_few_callers_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch)
    callers = line.callers(15)
    await line.quiet()
    await line.answer(0)
    assert line.sizes == [15, 15]
    callers += line.callers(400)
    await line.quiet()
    assert line.sizes == [15, 15, 200]
    await line.answer(1)
    assert line.sizes == [15, 15, 200, 200]
    for task in callers:
        task.cancel()
