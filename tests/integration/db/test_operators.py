"""Lists over all accounts' jobs: the same jobs as by looking at each; no list walks over them all."""

from collections.abc import Mapping
from itertools import chain, combinations

import pytest
from tests.integration.db.test_lists import mix
from tests.integration.db.test_plans import Recorder, plans
from tests.support.buckets import HandClock
from tests.support.rows import add_accounts

from comfy_api_service.db import jobs, operators, usage
from comfy_api_service.db.base import Database, Params, Reader
from comfy_api_service.domain.job import SHOWN, State, Status
from comfy_api_service.domain.times import utc_day
from comfy_api_service.services.overview import DAYS, Overview


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
        (Status.SUCCEEDED, ("ix_jobs_succeeded",)),
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
        await operators.on_day(recorder, "2026-03-01")
        seen.extend(recorder.seen)

    await db.read(read)
    for sql, params in seen:
        assert "ix_usage_days_day" in (await plans(db, sql, params))[0].text, sql


class Figures:
    """Days of two accounts, and what the service tells of them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.clock = HandClock()
        self._overview = Overview(db, None, self.clock)  # type: ignore[arg-type]

    async def use(self, ago: int, *, reserved: int = 0, charged: int = 0) -> None:
        """On the day so many days ago, by both accounts."""
        await self._db.write(
            lambda tx: tx.many(
                """INSERT INTO usage_days (account_id, day, reserved, charged, gpu_seconds)
                   VALUES (:account, :day, :reserved, :charged, :seconds)
                   ON CONFLICT (account_id, day) DO UPDATE SET reserved = excluded.reserved,
                     charged = excluded.charged, gpu_seconds = excluded.gpu_seconds""",
                [
                    {"account": account, "day": utc_day(self.clock.now() - ago * 86_400.0)}
                    | {"reserved": reserved, "charged": charged, "seconds": charged / 4}
                    for account in ("acc0", "acc1")
                ],
            )
        )

    async def told(self) -> tuple[int, int]:
        """Images of today, and of all days; seconds go with them."""
        stats = await self._overview.stats()
        assert [one.gpu_seconds for one in (stats.today, stats.days)] == [
            one.images / 4 for one in (stats.today, stats.days)
        ]
        return stats.today.images, stats.days.images


@pytest.fixture
async def figures(db: Database) -> Figures:
    await add_accounts(db, "acc0", "acc1")
    return Figures(db)


async def test_figures_of_days_follow_what_is_produced(figures: Figures) -> None:
    for ago in range(DAYS + 1):
        await figures.use(ago, charged=100, reserved=int(ago in {0, 1, 7}))
    assert await figures.told() == (200, 200 * DAYS)
    for ago in (0, 1, 7):
        await figures.use(ago, charged=101)
        assert (await figures.told())[1] == 200 * DAYS + 2 * ((0, 1, 7).index(ago) + 1)
    # Yesterday had no job left for a while, and got another one by a clock that is late.
    await figures.use(1, charged=102)
    assert await figures.told() == (202, 200 * DAYS + 8)

    figures.clock.pass_seconds(86_400.0)
    assert await figures.told() == (0, 200 * (DAYS - 1) + 8)
    await figures.use(0, charged=1)
    assert await figures.told() == (2, 200 * (DAYS - 1) + 10)


async def test_figures_of_a_clock_that_was_ahead_are_forgotten(figures: Figures) -> None:
    await figures.use(0, charged=1)
    figures.clock.pass_seconds(3 * 86_400.0)
    assert await figures.told() == (0, 2)
    figures.clock.pass_seconds(-3 * 86_400.0)
    await figures.told()
    await figures.use(0, charged=5)
    assert await figures.told() == (10, 10)
    figures.clock.pass_seconds(3 * 86_400.0)
    assert await figures.told() == (0, 10)


async def test_days_that_are_over_are_summed_up_once(
    figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    await figures.use(5, charged=1, reserved=1)
    asked: list[str] = []
    on_day = operators.on_day

    async def noted(tx: Reader, which: str) -> operators.Day:
        asked.append(which)
        return await on_day(tx, which)

    monkeypatch.setattr(operators, "on_day", noted)
    await figures.told()
    assert len(asked) == DAYS
    asked.clear()
    await figures.told()
    assert asked == [utc_day(figures.clock.now() - ago * 86_400.0) for ago in (0, 1, 5)]
