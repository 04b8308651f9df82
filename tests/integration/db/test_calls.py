"""A claim, a start and an end in one call of the server: to the same effect as step by step, or not at all."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
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
    add_backend,
    claim,
    drift,
    inventory_of_checkpoints,
    new_job,
    put,
    until_somebody_waits,
)
from tests.support.schema import url_of
from tests.support.stack import until
from tests.support.twins import MODELS, NAMES, contents

from comfy_api_service.db import calls, claims, transitions
from comfy_api_service.db.base import CommitUnknown, Database, Tx
from comfy_api_service.db.claims import Busy, Claimant, Claimed
from comfy_api_service.db.endings import Change, Ending
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_prompt_id
from comfy_api_service.domain.job import Artifact, CacheUse, JobError, State, Status
from comfy_api_service.domain.submission import JobOptions
from comfy_api_service.services.announce import Announcer
from comfy_api_service.signals.memory import MemorySignals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import assigned
from comfy_api_service.worker.reporter import Reporter

TABLES: Final = {
    "jobs": "id",
    "attempts": "job_id, number",
    "artifacts": "job_id, idx",
    "events": "job_id, seq",
    "outbox": "id",
    "ledger": "job_id",
    "usage_days": "account_id, day",
    "lanes": "account_id",
    "lane_needs": "account_id, requirement_id",
    "backends": "id",
    "timings": "key",
}
"""What a claim, a start and an end write, and in which order it is compared."""


async def start(db: Database, fence: Fence, now: float) -> Change | None:
    return await db.write(lambda tx: calls.started(tx, fence, now=now), single=True)


async def finish(
    db: Database, fence: Fence, ending: Ending, now: float, measured: Mapping[str, float] | None = None
) -> Change | None:
    return await db.write(lambda tx: calls.finish(tx, fence, ending, now=now, measured=measured), single=True)


async def claim_by_call(
    db: Database, claimant: Claimant, prompt_id: str, now: float
) -> Claimed | Busy | None:
    return await claims._at_once(db, claimant, prompt_id, now, set())


async def claim_by_steps(
    db: Database, claimant: Claimant, prompt_id: str, now: float
) -> Claimed | Busy | None:
    return await db.write(lambda tx: claims.claim(tx, claimant, prompt_id=prompt_id, now=now, patient=True))


# --- the same effect -------------------------------------------------------------------------------------

CHANGES: Final = (
    "UPDATE lanes SET cap = 2, running = greatest(running, 0)",
    "UPDATE lanes SET cap = 1000",
    "UPDATE lanes SET weight = 1 + {few} WHERE account_id < 'b'",
    "UPDATE backends SET start_tag = {much} WHERE id = 'bck_1'",
    "UPDATE backends SET start_tag = {much} WHERE id = 'bck_2'",
    "UPDATE backends SET state = 'offline' WHERE id = 'bck_2'",
    "UPDATE backends SET state = 'online'",
    "DELETE FROM timings",
    """INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('all', 1, {few}, 0)
       ON CONFLICT (key) DO UPDATE SET seconds = {few}""",
    "UPDATE jobs SET retention = {few} WHERE seq = 1 AND ordinal % 3 = 0",
    "UPDATE ledger SET settled_at = 5 WHERE job_id IN (SELECT id FROM jobs WHERE ordinal % 7 = 0)",
)
"""What others do between."""


def any_ending(chance: random.Random) -> Ending:
    def maybe(value: Any) -> Any:
        return chance.choice((None, value))

    artifacts = tuple(
        Artifact(
            index=index,
            node_id=str(chance.randint(1, 9)),
            kind=chance.choice(("image", "text")),
            media_type="image/png",
            bytes=chance.randint(1, 10**10),
            sha256=f"{chance.getrandbits(256):064x}",
            key=f"jobs/ä/{chance.random()}",
            width=maybe(64),
            height=maybe(65),
            seed=maybe(2**64 - 1),
            meta=maybe({"ä": [1, "'\\\""]}) or {},
        )
        for index in range(chance.choice((0, 1, 1, 4)))
    )
    state = chance.choice((State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.CANCELED))
    error = JobError(Code.OUTPUT_INVALID, "It is 'wrong'.", {"n": 1}, node_id="3")
    return Ending(
        state=state,
        artifacts=artifacts if state is State.SUCCEEDED else (),
        values=maybe({"1": ["ä", 2]}) or {},
        error=error if state is State.FAILED else None,
        cache=maybe(CacheUse.PARTIAL),
        produced=chance.randint(0, 4),
        backend_seconds=maybe(chance.random() * 10 ** chance.randint(-2, 3)),
        expires_at=maybe(5_000.0 + chance.random()),
        outcome=chance.choice(("done", "output_invalid")),
    )


def test_what_is_compared_is_all_that_an_ending_may_bring() -> None:
    """A field that always has its default would be equal on both sides also if one of them forgot it."""
    chance = random.Random(0)
    endings = [any_ending(chance) for _ in range(50)]
    assert all(len({repr(getattr(one, field)) for one in endings}) > 1 for field in Ending.__slots__)
    artifacts = [artifact for one in endings for artifact in one.artifacts]
    constant = {
        field for field in Artifact.__slots__ if len({repr(getattr(one, field)) for one in artifacts}) == 1
    }
    assert constant == {"media_type"}


class Sides:
    """The same claims, starts and ends: step by step in the first, by calls in the second."""

    def __init__(self, pair: Pair, chance: random.Random) -> None:
        self._steps, self._calls = pair
        self._chance = chance
        self._open: list[Claimed] = []
        self.now = 2_000.0
        self.done: list[str] = []

    async def claim(self) -> None:
        number = self._chance.randint(1, 2)
        models = MODELS[:2] if number == 1 else MODELS[1:2]
        stocked = inventory_of_checkpoints(*models).hash
        claimant = Claimant(f"bck_{number}", f"wrk-bck_{number}", "client", stocked)
        prompt_id = new_prompt_id()
        by_steps = await claim_by_steps(self._steps, claimant, prompt_id, self.now)
        by_call = await claim_by_call(self._calls, claimant, prompt_id, self.now)
        assert by_call == by_steps
        if isinstance(by_steps, Claimed):
            self._open.append(by_steps)
            self.done.append("claim")

    async def start(self) -> None:
        if self._open:
            fence = self._chance.choice(self._open).fence
            by_steps = await self._steps.write(lambda tx: transitions.started(tx, fence, now=self.now))
            by_call = await start(self._calls, fence, self.now)
            assert by_steps is not None
            if by_steps.events:
                assert by_call == by_steps
                self.done.append("start")
            else:
                assert by_call is None, "it had started before"

    async def store(self) -> None:
        if self._open:
            fence = self._chance.choice(self._open).fence
            for db in (self._steps, self._calls):
                assert await db.write(lambda tx: transitions.storing(tx, fence))

    async def end(self) -> None:
        if self._open:
            fence = self._open.pop(self._chance.randrange(len(self._open))).fence
            ending = any_ending(self._chance)
            names = self._chance.sample(("all", "load:ä", "kind 1", "Kind"), self._chance.randint(0, 3))
            measured = {name: self._chance.random() * 10 for name in names}
            by_steps = await self._steps.write(
                lambda tx: transitions.finish(tx, fence, ending, now=self.now, measured=measured)
            )
            assert by_steps is not None
            assert await finish(self._calls, fence, ending, self.now, measured) == by_steps
            self.done.append("end")

    async def change(self) -> None:
        sql = self._chance.choice(CHANGES).format(
            much=self._chance.random() * 1_000, few=self._chance.random() * 30
        )
        for db in (self._steps, self._calls):
            await db.write(lambda tx: tx.run(sql))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_done_both_ways_write_the_same(twins: Pair, seed: int) -> None:
    chance = random.Random(seed)
    jobs = [
        new_job(
            account=chance.choice(NAMES),
            model=chance.choice(MODELS[:2]),
            cost=chance.random() * 10,
            at=1_000.0 + n,
            options=JobOptions(priority=chance.choice((0, 0, 5)), deadline=chance.choice((None, 10_000.0))),
        )._replace(images=chance.randint(0, 4), timing_key=f"kind {n % 2}")
        for n in range(100)
    ]
    for db in twins:
        await put(db, *jobs)
    sides = Sides(twins, chance)
    acts: list[Callable[[], Awaitable[None]]] = [
        sides.claim, sides.claim, sides.claim, sides.start, sides.start, sides.start, sides.end, sides.end,
        sides.store, sides.change,
    ]  # fmt: skip
    for _ in range(300):
        await chance.choice(acts)()
        sides.now += chance.random()
    first, second = [await contents(db, TABLES) for db in twins]
    for table in TABLES:
        assert second[table] == first[table], table
    assert min(map(sides.done.count, ("claim", "start", "end"))) > 20


# --- or none ---------------------------------------------------------------------------------------------

DONE: Final = Ending(State.SUCCEEDED, values={"1": ["x"]}, backend_seconds=1.0)


async def taken(db: PostgresDatabase) -> Claimed:
    claimant = await add_backend(db)
    await put(db, new_job())
    claimed = await claim(db, claimant)
    assert claimed is not None
    return claimed


async def refuses(db: PostgresDatabase, call: Callable[[], Awaitable[Any]]) -> None:
    """Nothing is done, and nothing left behind."""
    before = await contents(db, TABLES)
    assert await call() is None
    assert await contents(db, TABLES) == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE attempts SET worker_id = 'wrk-other'",
        "UPDATE jobs SET attempt = 2",
        "UPDATE jobs SET state = 'ready'",
        "UPDATE jobs SET state = 'failed'",
        "UPDATE jobs SET id = 'job_other'",
    ],
)
async def test_who_was_replaced_does_nothing(both: Pair, change: str) -> None:
    db, _ = both
    fence = (await taken(db)).fence
    if "id = 'job" in change:
        fence = Fence("job_other", fence.attempt, fence.worker_id)
    else:
        await db.write(lambda tx: tx.run(change))
    await refuses(db, lambda: start(db, fence, 2.0))
    await refuses(db, lambda: finish(db, fence, DONE, 2.0))


async def test_what_is_overruled_goes_step_by_step(both: Pair) -> None:
    db, _ = both
    fence = (await taken(db)).fence
    await db.write(lambda tx: tx.run("UPDATE jobs SET deadline_at = 5.0"))
    await refuses(db, lambda: finish(db, fence, DONE, 5.0))
    await db.write(lambda tx: transitions.cancel(tx, LOCAL.id, fence.job_id, now=2.0))
    for ending in (DONE, replace(DONE, state=State.CANCELED)):
        await refuses(db, lambda: finish(db, fence, ending, 2.0))  # noqa: B023
    assert await start(db, fence, 2.0) is not None
    await refuses(db, lambda: start(db, fence, 2.0))


async def test_a_failure_that_comes_late_is_what_it_is(both: Pair) -> None:
    db, _ = both
    fence = (await taken(db)).fence
    await db.write(lambda tx: tx.run("UPDATE jobs SET deadline_at = 5.0"))
    error = JobError(Code.OUTPUT_INVALID, "It is wrong.")
    change = await finish(db, fence, Ending(State.FAILED, error=error), 6.0)
    assert change is not None
    assert change.job is not None
    assert change.job.error == error


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE backends SET worker_id = 'wrk-other'",
        "UPDATE backends SET residency = '{}'",
        "UPDATE lanes SET vtime = 60",
        "UPDATE lanes SET cap = 0",
        "UPDATE lanes SET queued = 0",
        "UPDATE jobs SET state = 'canceled'",
    ],
)
async def test_a_claim_whose_reasons_have_changed_takes_nothing(
    both: Pair, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between its look and its call; the lane's place is between those of the two others."""
    db, other = both
    await add_accounts(db, "a", "b")
    claimant = await add_backend(db)
    await put(db, new_job())
    assert await claim(db, claimant) is not None
    await put(db, new_job(), new_job(account="a"), new_job(account="b"))
    vtimes = "CASE account_id WHEN 'a' THEN 50 WHEN 'b' THEN 55 ELSE 1 END"
    await db.write(lambda tx: tx.run(f"UPDATE lanes SET vtime = {vtimes}"))
    read = db.read

    async def looked(function: Any) -> Any:
        seen = await read(function)
        await other.write(lambda tx: tx.run(change))
        return seen

    monkeypatch.setattr(db, "read", looked)
    before = await other.read(lambda tx: tx.all("SELECT prompt_id FROM attempts"))
    assert await claim_by_call(db, claimant, new_prompt_id(), 2.0) is Busy.BUSY
    assert await other.read(lambda tx: tx.all("SELECT prompt_id FROM attempts")) == before


async def test_a_lane_that_moved_and_stands_where_it_stood_is_charged_from_where_it_is(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So ends and claims of others do not make every claim look again; if its head is gone, the next one goes."""
    db, other = both
    await add_accounts(db, "a")
    claimant = await add_backend(db)
    _, *rest = await put(db, *(new_job(cost=2.0) for _ in range(3)), new_job(account="a"))
    await db.write(lambda tx: tx.run("UPDATE lanes SET vtime = 50 WHERE account_id = 'a'"))
    await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=1.0)
    read = db.read

    async def looked(function: Any) -> Any:
        seen = await read(function)
        taken = await claim_by_steps(other, replace(claimant), new_prompt_id(), 2.0)
        assert isinstance(taken, Claimed)
        assert taken.job_id == rest[0]
        await other.write(lambda tx: tx.run("UPDATE backends SET residency = :was", {"was": residency}))
        await other.write(lambda tx: tx.run("UPDATE lanes SET vtime = 7.5 WHERE account_id <> 'a'"))
        return seen

    row = await db.read(lambda tx: tx.one("SELECT residency FROM backends"))
    assert row is not None
    residency = row["residency"]
    monkeypatch.setattr(db, "read", looked)
    found = await claim_by_call(db, claimant, new_prompt_id(), 3.0)
    assert isinstance(found, Claimed)
    assert found.job_id == rest[1]
    monkeypatch.undo()
    lane = await db.read(
        lambda tx: tx.one(
            "SELECT vtime, queued, running FROM lanes WHERE account_id = :a", {"a": LOCAL_ACCOUNT}
        )
    )
    assert lane is not None
    assert (lane["vtime"], lane["queued"], lane["running"]) == (9.5, 0, 3)
    tag = await db.read(lambda tx: tx.one("SELECT start_tag FROM backends"))
    assert tag is not None
    assert tag["start_tag"] == 7.5
    assert await drift(db) == []


@pytest.mark.parametrize("change", ["cost = 9", "priority = 1", "out_of_memory = 1"])
async def test_the_next_job_goes_only_if_it_is_like_the_one_that_was_chosen(
    both: Pair, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    db, other = both
    claimant = await add_backend(db)
    await put(db, new_job())
    await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=1.0)
    first, second = await put(db, new_job(), new_job())
    read = db.read

    async def looked(function: Any) -> Any:
        seen = await read(function)
        await other.write(lambda tx: transitions.cancel(tx, LOCAL.id, first, now=2.0))
        await other.write(lambda tx: tx.run(f"UPDATE jobs SET {change} WHERE id = :id", {"id": second}))
        return seen

    monkeypatch.setattr(db, "read", looked)
    assert await claim_by_call(db, claimant, new_prompt_id(), 3.0) is Busy.BUSY


@pytest.mark.parametrize("change", ["UPDATE jobs SET state = 'canceled'", "UPDATE lanes SET queued = 0"])
async def test_who_comes_too_late_for_the_only_job_goes_and_waits(
    both: Pair, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Whatever came since then wakes it; with more than one job it looks again."""
    db, other = both
    claimant = await add_backend(db)
    read = db.read

    async def looked(function: Any) -> Any:
        seen = await read(function)
        await other.write(lambda tx: tx.run(change))
        return seen

    for jobs, found in ((1, None), (2, Busy.BUSY)):
        await other.write(lambda tx: tx.run("UPDATE jobs SET state = 'canceled'"))
        await other.write(lambda tx: tx.run("UPDATE lanes SET queued = 0"))
        await other.write(lambda tx: tx.run("DELETE FROM lane_needs"))
        await put(other, *(new_job() for _ in range(jobs)))
        monkeypatch.setattr(db, "read", looked)
        assert await claim_by_call(db, claimant, new_prompt_id(), 2.0) is found
        monkeypatch.undo()


async def test_a_memory_that_another_version_wrote_keeps_no_backend_from_the_only_job(both: Pair) -> None:
    db, _ = both
    claimant = await add_backend(db)
    for written in ('{"model": null}', '{"spent": 1, "model": "x"}', "{}"):
        await put(db, new_job())
        await db.write(lambda tx: tx.run("UPDATE backends SET residency = :it", {"it": written}))  # noqa: B023
        assert isinstance(await claim_by_call(db, claimant, new_prompt_id(), 1.0), Claimed)


async def test_of_the_claimants_of_a_process_one_asks_for_the_only_job(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, _ = both
    claimants = [await add_backend(db, backend_id=f"bck_{n}") for n in range(4)]
    write, wanted, go = db.write, set[str](), asyncio.Event()
    calls_made = 0

    async def after_all_have_looked(function: Any, **options: Any) -> Any:
        nonlocal calls_made
        calls_made += 1
        await go.wait()
        return await write(function, **options)

    def claiming() -> list[asyncio.Task[Claimed | Busy | None]]:
        return [
            asyncio.create_task(claims.next_job(db, one, prompt_id=new_prompt_id(), now=1.0, wanted=wanted))
            for one in claimants
        ]

    await put(db, new_job())
    monkeypatch.setattr(db, "write", after_all_have_looked)
    tasks = claiming()
    await until(lambda: sum(task.done() for task in tasks) == 3)
    go.set()
    found = await asyncio.gather(*tasks)
    assert sum(isinstance(one, Claimed) for one in found) == calls_made == 1
    assert not wanted
    await put(db, *(new_job() for _ in range(4)))
    found = await asyncio.gather(*claiming())
    assert all(isinstance(one, Claimed) for one in found), "each has one of several"


# --- beside others ---------------------------------------------------------------------------------------


async def test_who_is_replaced_while_a_call_waits_does_nothing(both: Pair) -> None:
    """The row that says whose the attempt is may be another's by the time it is got."""
    one, two = both
    fence = (await taken(one)).fence
    moves: list[Callable[[], Coroutine[Any, Any, Change | None]]] = [
        lambda: start(two, fence, 2.0),
        lambda: finish(two, fence, DONE, 2.0),
    ]
    for move in moves:
        has, let_go = asyncio.Event(), asyncio.Event()

        async def take_over(tx: Tx) -> None:
            await tx.run("UPDATE attempts SET worker_id = 'wrk-other'")
            has.set()  # noqa: B023
            await let_go.wait()  # noqa: B023

        taking = asyncio.create_task(one.write(take_over))
        await has.wait()
        waiting = asyncio.create_task(move())
        await until_somebody_waits(one)
        let_go.set()
        await taking
        assert await waiting is None
        await one.write(lambda tx: tx.run("UPDATE attempts SET worker_id = :w", {"w": fence.worker_id}))


LOCKS: Final = {
    "lane": "SELECT 1 FROM lanes FOR NO KEY UPDATE",
    "job": "SELECT 1 FROM jobs FOR NO KEY UPDATE",
    "attempt": "SELECT 1 FROM attempts FOR NO KEY UPDATE",
}


@pytest.mark.parametrize("held", LOCKS)
async def test_locks_are_taken_in_the_order_of_all_who_write(both: Pair, tmp_path: Path, held: str) -> None:
    """Lane, job, attempt: who waits for one holds none of those that come behind it."""
    db, _ = both
    fence = (await taken(db)).fence
    other = await asyncpg.connect(url_of(tmp_path))
    await other.execute("SET lock_timeout = '100ms'; BEGIN")
    await other.execute(LOCKS[held])
    waiting = asyncio.create_task(finish(db, fence, DONE, 2.0))
    await until_somebody_waits(db)
    for name in list(LOCKS)[list(LOCKS).index(held) + 1 :]:
        await other.execute(LOCKS[name])
    await other.execute("ROLLBACK")
    assert await waiting is not None
    await other.close()


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("cut", list(Cut))
async def test_calls_whose_answer_was_lost_are_done_once(
    postgres: PostgresServer, tmp_path: Path, both: Pair, cut: Cut
) -> None:
    url = url_of(tmp_path)
    assert url is not None
    claimant = await add_backend(both[0])
    (job_id,) = await put(both[0], new_job())
    async with proxied(postgres.port) as proxy:
        address = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        through = await PostgresDatabase.open(address, application="tests", connections=2)
        prompt_id = new_prompt_id()
        proxy.cut_at(prompt_id.encode(), cut)
        with pytest.raises(CommitUnknown):
            await claim_by_call(through, claimant, prompt_id, 1.0)
        found = await both[0].read(lambda tx: tx.one("SELECT prompt_id FROM attempts"))
        if found is None:
            assert isinstance(await claim_by_call(through, claimant, prompt_id, 1.0), Claimed)
        fence = Fence(job_id, 1, claimant.worker_id)
        moves: list[Callable[[], Awaitable[Change | None]]] = [
            lambda: start(through, fence, 2.0),
            lambda: finish(through, fence, DONE, 3.0),
        ]
        for move in moves:
            proxy.cut_at(job_id.encode(), cut)
            with pytest.raises(CommitUnknown):
                await move()
            await move()
        assert proxy.cuts == 3
        await through.close()
    assert await drift(both[0]) == []
    check(tmp_path, [job_id])


# --- who asks --------------------------------------------------------------------------------------------


async def test_common_moves_take_one_call_each_and_others_go_step_by_step(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, _ = both
    claimant = await add_backend(db)
    await put(db, new_job(), new_job())
    await claims.next_job(
        db, claimant, prompt_id=new_prompt_id(), now=1.0
    )  # of a backend that remembers nothing
    steps: list[str] = []

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        async def noted(*args: Any, **options: Any) -> Any:
            steps.append(name)
            return await function(*args, **options)

        monkeypatch.setattr(module, name, noted)

    for module, name in ((claims, "claim"), (transitions, "started"), (transitions, "finish")):
        counted(module, name)
    told: list[tuple[str, int]] = []
    announcer = SimpleNamespace(announce=lambda job_id, change: told.append((job_id, len(change.events))))
    reporter = Reporter(db, MemorySignals(), cast("Announcer", announcer), SystemClock(), Metrics())
    claimed = await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=1.0)
    assert isinstance(claimed, Claimed)
    assignment = assigned(claimed)
    assert await reporter.started(assignment)
    assert await reporter.finish(assignment, DONE) is Status.SUCCEEDED
    assert (steps, told) == ([], [(claimed.job_id, 1), (claimed.job_id, 1)])
    assert not await reporter.started(assignment)
    assert await reporter.finish(assignment, DONE) is None
    assert steps == ["started", "finish"]
    assert len(told) == 2
