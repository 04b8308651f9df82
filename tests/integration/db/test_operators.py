"""Lists over all accounts' jobs: the same jobs as by looking at each; no list walks over them all."""

from collections.abc import Mapping
from itertools import chain, combinations

import pytest
from tests.integration.db.test_lists import mix
from tests.integration.db.test_plans import Recorder, plans
from tests.support.rows import add_accounts

from comfy_api_service.db import jobs, operators, usage
from comfy_api_service.db.base import Database, Params, Reader
from comfy_api_service.domain.job import SHOWN, State, Status


@pytest.fixture
async def mixed(db: Database) -> Mapping[str, State]:
    """Two accounts' jobs, nearly all succeeded."""
    _, states = await mix(db)
    return states


async def listed(db: Database, statuses: frozenset[Status]) -> list[str]:
    """All of them, seven a page."""
    found: list[str] = []
    while True:
        before = found[-1] if found else None
        page = await db.read(lambda tx: operators.jobs_of_all(tx, statuses, before=before, limit=7))  # noqa: B023
        found += [one.id for one in page]
        if len(page) < 7:
            return found


async def test_every_choice_of_statuses(db: Database, mixed: Mapping[str, State]) -> None:
    choices = chain.from_iterable(combinations(Status, count) for count in range(len(Status) + 1))
    for chosen in map(frozenset, choices):
        if Status.SUCCEEDED in chosen and len(chosen) > 1:
            continue
        wanted = sorted(
            (i for i, state in mixed.items() if not chosen or SHOWN[state] in chosen), reverse=True
        )
        assert await listed(db, chosen) == wanted, chosen


async def asked(db: Database, status: Status | None) -> tuple[str, Params]:
    seen: list[tuple[str, Params]] = []

    async def page(tx: Reader) -> None:
        recorder = Recorder(tx)  # type: ignore[arg-type]
        statuses = frozenset({status} if status else ())
        await operators.jobs_of_all(recorder, statuses, before=None, limit=20)
        seen.extend(recorder.seen)

    await db.read(page)
    return next(one for one in seen if "ORDER BY j.id" in one[0])


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("status", "indices"),
    [
        (None, ("pk_jobs", "sqlite_autoindex_jobs_1")),
        (Status.QUEUED, ("ix_jobs_ready", "ix_jobs_oldest")),
        (Status.RUNNING, ("ix_jobs_open",)),
        (Status.FAILED, ("ix_jobs_unsuccessful_of_all",)),
        (Status.CANCELED, ("ix_jobs_unsuccessful_of_all",)),
    ],
)
async def test_lists_are_read_by_an_index(
    db: Database, status: Status | None, indices: tuple[str, ...]
) -> None:
    for plan in await plans(db, *await asked(db, status)):
        assert any(index in plan.text for index in indices), plan.text
        assert "jobs" not in plan.walked, plan.text


@pytest.mark.usefixtures("mixed")
async def test_many_that_wait_are_not_gathered_first(db: Database) -> None:
    await db.write(lambda tx: tx.run("UPDATE lanes SET queued = :many", {"many": jobs.FEW}))
    sql, _ = await asked(db, Status.QUEUED)
    assert "state = 'ready'" not in sql


async def test_an_export_and_the_figures_find_their_days(db: Database) -> None:
    rows = [
        {"account": f"acc{n % 50}", "day": f"2026-{n // 50 % 12 + 1:02}-{n // 600 + 1:02}"}
        for n in range(12_000)
    ]
    await add_accounts(db, *(f"acc{n}" for n in range(50)))
    await db.write(
        lambda tx: tx.many("INSERT INTO usage_days (account_id, day) VALUES (:account, :day)", rows)
    )
    if db.dialect.name == "postgresql":
        await db.write(lambda tx: tx.run("ANALYZE"))
    seen: list[tuple[str, Params]] = []

    async def read(tx: Reader) -> None:
        recorder = Recorder(tx)  # type: ignore[arg-type]
        await usage.lines(recorder, "2026-03-01", "2026-03-02", after=("", ""), limit=20)
        await operators.produced(recorder, "2026-03-01", "2026-03-02")
        seen.extend(recorder.seen)

    await db.read(read)
    for sql, params in seen:
        assert "ix_usage_days_day" in (await plans(db, sql, params))[0].text, sql
