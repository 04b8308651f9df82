"""Lists by status: whatever is asked for, the same jobs as by looking at each; what is rare is found by an index."""

from itertools import chain, combinations

import pytest
from tests.integration.db.test_plans import Recorder, plans
from tests.support.rows import add_accounts, new_job

from comfy_api_service.db import jobs
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.db.insertion import insert
from comfy_api_service.domain.job import SHOWN, State, Status
from comfy_api_service.domain.submission import NewJob

JOBS = 3_000
OTHERS = {
    7: State.FAILED,
    13: State.CANCELED,
    19: State.EXECUTING,
    23: State.STORING,
    29: State.DISPATCHED,
    31: State.READY,
}


async def mix(db: Database) -> tuple[list[NewJob], dict[str, State]]:
    """Jobs of two accounts, nearly all succeeded, and the state of each."""
    await add_accounts(db, "mine", "other")
    made = [new_job(account="other" if n % 3 == 0 else "mine") for n in range(JOBS)]
    await db.write(lambda tx: insert(tx, made, queue_limit=10**9))
    states = {job.id: OTHERS.get(n % 500, State.SUCCEEDED) for n, job in enumerate(made)}

    async def spread(tx: Tx) -> None:
        await tx.many(
            "UPDATE jobs SET state = :state WHERE id = :id",
            [{"id": i, "state": s} for i, s in states.items()],
        )
        await tx.run("UPDATE lanes SET queued = 5")
        if tx.dialect.name == "postgresql":
            await tx.run("ANALYZE")

    await db.write(spread)
    return made, states


@pytest.fixture
async def mixed(db: Database) -> dict[str, State]:
    """The state of each of the first account's jobs."""
    made, states = await mix(db)
    return {job.id: states[job.id] for job in made if job.account_id == "mine"}


async def listed(db: Database, statuses: frozenset[Status], before: str | None) -> list[str]:
    filters = jobs.JobFilters(statuses)
    return [
        one.id for one in await db.read(lambda tx: jobs.page(tx, "mine", filters, before=before, limit=500))
    ]


async def test_every_choice_of_statuses(db: Database, mixed: dict[str, State]) -> None:
    choices = chain.from_iterable(combinations(Status, count) for count in range(1, len(Status) + 1))
    for chosen in map(frozenset, choices):
        wanted = sorted((one for one, state in mixed.items() if SHOWN[state] in chosen), reverse=True)
        found = await listed(db, chosen, None)
        while part := await listed(db, chosen, found[-1]):
            found += part
        assert found == wanted, chosen


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("status", "index"),
    [
        (Status.QUEUED, "ix_jobs_open"),
        (Status.RUNNING, "ix_jobs_open"),
        (Status.FAILED, "ix_jobs_unsuccessful"),
        (Status.CANCELED, "ix_jobs_unsuccessful"),
    ],
)
async def test_what_is_rare_is_found_by_an_index(db: Database, status: Status, index: str) -> None:
    asked = []

    async def page(tx: Reader) -> None:
        recorder = Recorder(tx)  # type: ignore[arg-type]
        await jobs.page(recorder, "mine", jobs.JobFilters(frozenset({status})), before=None, limit=50)
        asked.extend(recorder.seen)

    await db.read(page)
    (sql, params) = next(one for one in asked if "ORDER BY j.id" in one[0])
    for plan in await plans(db, sql, params):
        assert index in plan.text, plan.text


async def test_many_that_wait_are_not_gathered_first(db: Database, mixed: dict[str, State]) -> None:
    await db.write(lambda tx: tx.run("UPDATE lanes SET queued = :many", {"many": jobs.FEW + 1}))
    recorded: list[str] = []

    async def page(tx: Reader) -> None:
        recorder = Recorder(tx)  # type: ignore[arg-type]
        found = await jobs.page(
            recorder, "mine", jobs.JobFilters(frozenset({Status.QUEUED})), before=None, limit=50
        )
        assert {job.id for job in found} == {
            one for one, state in mixed.items() if SHOWN[state] is Status.QUEUED
        }
        recorded.extend(sql for sql, _ in recorder.seen)

    await db.read(page)
    assert not any("state = 'ready'" in sql for sql in recorded)
