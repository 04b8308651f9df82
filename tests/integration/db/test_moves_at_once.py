"""All moves of several processes on one PostgreSQL, in any order: the books are kept, and nobody waits in a ring."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
import structlog
from tests.support.checker import check
from tests.support.postgres import PostgresServer
from tests.support.rows import Pair, add_accounts, add_backend, claim, claim_all, drift, new_job, put

from comfy_api_service.db import claims, counters, transitions
from comfy_api_service.db.claims import Claimant, Claimed
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.insertion import Written
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.ids import new_prompt_id
from comfy_api_service.domain.job import State
from comfy_api_service.domain.submission import JobOptions, NewJob


async def test_a_cancel_and_a_claim_at_once_leave_no_job_uncanceled(both: Pair, tmp_path: Path) -> None:
    claimant = await add_backend(both[0])
    for _ in range(25):
        (job_id,) = await put(both[0], new_job())
        (job, change), claimed = await asyncio.gather(
            both[0].write(lambda tx: transitions.cancel(tx, LOCAL.id, job_id, now=2.0)),  # noqa: B023
            claims.next_job(both[1], claimant, prompt_id=new_prompt_id(), now=1.0),
        )
        assert job is not None
        if not isinstance(claimed, Claimed):
            assert (job.state, change is not None) == (State.CANCELED, True)
            continue
        assert (job.canceling, change) == (True, None)
        ending = Ending(State.SUCCEEDED, values={"1": ["x"]})
        done = await both[1].write(
            lambda tx: transitions.finish(tx, claimed.fence, ending, now=3.0)  # noqa: B023
        )
        assert done is not None
        assert done.events[-1].status == "canceled"
    check(tmp_path)


async def test_of_two_ends_at_once_one_counts(both: Pair, tmp_path: Path) -> None:
    claimant = await add_backend(both[0])
    for _ in range(25):
        await put(both[0], new_job())
        claimed = await claim(both[0], claimant)
        assert claimed is not None
        fence = claimed.fence
        ending = Ending(State.SUCCEEDED, values={"1": ["x"]})
        gave = await asyncio.gather(
            both[0].write(lambda tx: transitions.finish(tx, fence, ending, now=2.0)),  # noqa: B023
            both[1].write(lambda tx: transitions.requeue(tx, fence, reason="lost", now=2.0)),  # noqa: B023
            both[1].write(lambda tx: transitions.storing(tx, fence)),  # noqa: B023
        )
        assert sum(one is not None for one in gave[:2]) == 1
    assert await drift(both[0]) == []
    check(tmp_path, all_ended=False)


async def test_counters_are_mended_while_others_write(both: Pair) -> None:
    await add_accounts(both[0], "a", "b", "c")
    claimant = await add_backend(both[0])
    done = asyncio.Event()

    async def work() -> None:
        for n in range(40):
            await put(both[1], new_job(account="abc"[n % 3]))
            if n % 2:
                await claim(both[1], claimant)
        done.set()

    async def mend() -> None:
        while not done.is_set():
            await both[0].write(counters.mend)

    await asyncio.gather(work(), mend())
    assert await drift(both[0]) == []


class Actors:
    """Random moves of many processes at once; what they do is only what the service does."""

    def __init__(self, both: Pair, claimants: Sequence[Claimant], seed: int) -> None:
        self._both = both
        self._claimants = claimants
        self._random = random.Random(seed)
        self._open: list[Claimed] = []
        self.jobs: list[NewJob] = []

    async def act(self, steps: int) -> None:
        for _ in range(steps):
            db = self._random.choice(self._both)
            await self._random.choice((self.submit, self.claim, self.claim, self.end, self.end, self.cancel))(
                db
            )

    async def submit(self, db: PostgresDatabase) -> None:
        group = [
            new_job(
                account=self._random.choice("abcd"),
                model=self._random.choice(("one.safetensors", "two.safetensors")),
                key=self._random.choice((None, f"key {self._random.randrange(30)}")),
                fingerprint=f"body {self._random.randrange(20)}",
                cost=self._random.random() * 5,
                options=JobOptions(dedupe=self._random.random() < 0.2),
            )
            for _ in range(self._random.randrange(1, 6))
        ]
        door = Submissions(db, queue_limit=200)
        outcomes = await asyncio.gather(*(door.add(job) for job in group))
        self.jobs += [job for job, one in zip(group, outcomes, strict=True) if isinstance(one, Written)]

    async def claim(self, db: PostgresDatabase) -> None:
        claimant = self._random.choice(self._claimants)
        found = await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=1.0)
        if isinstance(found, Claimed):
            self._open.append(found)

    async def end(self, db: PostgresDatabase) -> None:
        if not self._open:
            return
        one = self._random.choice(self._open)  # another actor may be at the same one
        fence = one.fence
        await db.write(lambda tx: transitions.started(tx, fence, now=2.0))
        if self._random.random() < 0.3:
            await db.write(lambda tx: transitions.storing(tx, fence))
        if self._random.random() < 0.3:
            await db.write(lambda tx: transitions.requeue(tx, fence, reason="lost", now=3.0))
        else:
            ending = Ending(State.SUCCEEDED, values={"1": ["x"]}, backend_seconds=self._random.random())
            await db.write(lambda tx: transitions.finish(tx, fence, ending, now=3.0))
        if one in self._open:
            self._open.remove(one)

    async def cancel(self, db: PostgresDatabase) -> None:
        if self.jobs:
            job = self._random.choice(self.jobs)
            await db.write(lambda tx: transitions.cancel(tx, job.account_id, job.id, now=4.0))

    async def settle(self) -> None:
        """Bring everything that is open or waits to its end."""
        for one in self._open:
            fence = one.fence
            ending = Ending(State.FAILED)
            await self._both[0].write(lambda tx: transitions.finish(tx, fence, ending, now=5.0))  # noqa: B023
        for job in self.jobs:
            await self._both[0].write(
                lambda tx: transitions.give_up(tx, job.id, Ending(State.FAILED), now=6.0)  # noqa: B023
            )


@pytest.mark.parametrize("seed", range(4))
async def test_any_interleaving_keeps_the_books_and_deadlocks_never(
    both: Pair, tmp_path: Path, seed: int
) -> None:
    await add_accounts(both[0], "a", "b", "c", "d")
    await both[0].write(lambda tx: tx.run("UPDATE lanes SET cap = 3 WHERE account_id IN ('a', 'b')"))
    models = ("one.safetensors", "two.safetensors")
    claimants = [await add_backend(both[0], *models[n % 2 :], backend_id=f"bck_{n}") for n in range(4)]
    actors = Actors(both, claimants, seed)
    with structlog.testing.capture_logs() as logs:
        await asyncio.gather(*(actors.act(25) for _ in range(8)))
    again = [entry["reason"] for entry in logs if entry["event"] == "transaction_again"]
    assert "DeadlockDetectedError" not in again
    assert await drift(both[0]) == []
    await actors.settle()
    assert await drift(both[0]) == []
    check(tmp_path, (job.id for job in actors.jobs))


async def test_the_database_counts_no_deadlock(both: Pair, postgres: PostgresServer, tmp_path: Path) -> None:
    """As the server itself has seen it, over writers that take many lanes in one transaction."""
    await add_accounts(both[0], *(f"acc{n}" for n in range(20)))
    doors = [Submissions(db, queue_limit=10_000) for db in both]
    order = random.Random(1)
    names = [f"acc{order.randrange(20)}" for _ in range(600)]
    claimants = [await add_backend(both[0], backend_id=f"bck_{n}") for n in range(3)]
    sending = asyncio.gather(*(doors[n % 2].add(new_job(account=name)) for n, name in enumerate(names)))
    await asyncio.gather(sending, *(claim_all(both[n % 2], one) for n, one in enumerate(claimants)))
    connection = await asyncpg.connect(postgres.url("postgres"))
    deadlocks = await connection.fetchval(
        "SELECT sum(deadlocks) FROM pg_stat_database WHERE datname LIKE 'test_%'"
    )
    await connection.close()
    assert await drift(both[0]) == []
    assert deadlocks == 0
    check(tmp_path, all_ended=False)
