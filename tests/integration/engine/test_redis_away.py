"""Redis dies, hangs, is emptied, is not there: no job is lost, nobody misses an end, and it is told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from tests.support.bus import bus
from tests.support.checker import check
from tests.support.crossing import Crossing, cross
from tests.support.stack import (
    FAST,
    SLOW,
    ended,
    job,
    online,
    order,
    reached,
    running,
    submit,
    until,
)
from tests.support.valkey import Valkey

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.job import State
from comfy_api_service.services.health import HealthReport, PartStatus
from comfy_api_service.services.views import Done, Moved, Notice, Snapshot
from comfy_api_service.signals.topics import Topics
from comfy_api_service.simulator import Simulator

MIDDLING = replace(FAST, seconds_per_step=0.02)


async def health(service: Service, redis: PartStatus) -> HealthReport:
    """The report, once Redis is in this state."""
    found: list[HealthReport] = []

    async def is_so() -> bool:
        found.append(await service.services.health.report())
        return found[-1].redis is redis

    await until(is_so)
    return found[-1]


@pytest.mark.parametrize("fault", ["kill", "pause", "restart", "flush"])
async def test_faults_in_mid_load_lose_no_job(tmp_path: Path, own_valkey: Valkey, fault: str) -> None:
    async with (
        Simulator(MIDDLING) as sim,
        running(tmp_path, sim.url, redis_url=own_valkey.url) as service,
    ):
        await online(service)
        assert (await health(service, PartStatus.CONNECTED)).healthy
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(10)]
        await reached(service, jobs[0], State.EXECUTING, State.SUCCEEDED)
        if fault == "flush":
            own_valkey.command("FLUSHALL")
        else:
            getattr(own_valkey, fault)()
        jobs += [(await submit(service, order(seed=n))).job_id for n in range(10, 20)]
        if fault in {"kill", "pause"}:
            report = await health(service, PartStatus.DISCONNECTED)
            assert not report.healthy
            assert report.database is not PartStatus.DISCONNECTED
            assert await service.services.health.ready() == ()
            jobs += [(await submit(service, order(seed=n))).job_id for n in range(20, 30)]
            for one in jobs:
                assert (await ended(service, one)).state is State.SUCCEEDED
            (own_valkey.start if fault == "kill" else own_valkey.go_on)()
        assert (await health(service, PartStatus.CONNECTED)).healthy
        for one in jobs:
            assert (await ended(service, one)).state is State.SUCCEEDED
        assert sim.record.executions == len(jobs)
    check(tmp_path, jobs)


async def test_a_service_starts_and_works_without_the_redis_it_was_told_of(tmp_path: Path) -> None:
    async with (
        Simulator(FAST) as sim,
        running(tmp_path, sim.url, redis_url="redis://127.0.0.1:9") as service,
    ):
        await online(service)
        assert (await ended(service, (await submit(service)).job_id)).state is State.SUCCEEDED
        assert (await health(service, PartStatus.DISCONNECTED)).healthy is False


async def test_without_redis_it_is_embedded_and_healthy(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        assert (await health(service, PartStatus.EMBEDDED)).healthy


# --- all signals through Redis ---------------------------------------------------------------------------------


@pytest.fixture
async def apart(
    tmp_path: Path, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Service, Crossing, Simulator]]:
    """A service whose one end hears the other through Redis only."""
    cross(monkeypatch, own_valkey.url)
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        crossing = service.services.watcher._signals
        assert isinstance(crossing, Crossing)
        yield service, crossing, sim


async def told(notices: AsyncIterator[Notice], kind: type[Notice], limit: float = 30) -> Notice:
    """The next notice of this kind."""
    async with asyncio.timeout(limit):
        async for notice in notices:
            if isinstance(notice, kind):
                return notice
    raise AssertionError("the stream ended before")


async def test_nobody_misses_an_end_while_redis_is_away(
    apart: tuple[Service, Crossing, Simulator], own_valkey: Valkey
) -> None:
    service, crossing, _ = apart
    watcher = service.services.watcher
    job_id = (await submit(service, order(steps=4))).job_id
    of_job, of_account = watcher.job(LOCAL, job_id), watcher.account(LOCAL)
    await told(of_job, Moved)
    await told(of_account, Snapshot)
    own_valkey.kill()
    await crossing.ear.away()
    for stream in (of_job, of_account):
        end = await told(stream, Done)
        assert isinstance(end, Done)
        assert end.view.job.state is State.SUCCEEDED
        await stream.aclose()
    assert not watcher._told
    assert not watcher._waiting


async def test_work_starts_by_polling_while_redis_is_away(
    apart: tuple[Service, Crossing, Simulator], own_valkey: Valkey
) -> None:
    service, crossing, _ = apart
    own_valkey.pause()
    await crossing.mouth.away()
    seen = crossing.wakes
    job_id = (await submit(service)).job_id
    await reached(service, job_id, State.DISPATCHED, State.EXECUTING)
    assert crossing.wakes == seen


async def test_a_cancel_is_carried_out_while_redis_is_away(
    apart: tuple[Service, Crossing, Simulator], own_valkey: Valkey
) -> None:
    service, crossing, _ = apart
    job_id = (await submit(service, order(steps=500))).job_id
    await reached(service, job_id, State.EXECUTING)
    own_valkey.kill()
    await crossing.ear.away()
    await service.services.jobs.cancel(LOCAL, job_id)
    assert (await ended(service, job_id)).state is State.CANCELED


async def test_an_end_that_is_only_said_is_not_believed(
    apart: tuple[Service, Crossing, Simulator], own_valkey: Valkey
) -> None:
    service, _, _ = apart
    watcher = service.services.watcher
    job_id = (await submit(service, order(steps=8))).job_id
    await reached(service, job_id, State.EXECUTING)
    of_job, of_account = watcher.job(LOCAL, job_id), watcher.account(LOCAL)
    seq = (await job(service, job_id)).seq
    await told(of_job, Moved)
    await told(of_account, Snapshot)
    for name, number in ((job_id, seq + 1), (job_id, seq + 7), ("job_of_somebody_else", 4)):
        lie = ["event", name, LOCAL.id, 1, number, "done", "failed", 1.0, {}]
        own_valkey.command("PUBLISH", Topics(0).listeners, orjson.dumps([1, "liar", [lie]]))
    for end in await asyncio.gather(told(of_job, Done), told(of_account, Done)):
        assert isinstance(end, Done)
        assert end.view.job.state is State.SUCCEEDED
    await of_job.aclose()
    await of_account.aclose()


async def test_a_newcomer_is_told_how_far_a_running_job_is(
    apart: tuple[Service, Crossing, Simulator], own_valkey: Valkey
) -> None:
    service, _, _ = apart
    job_id = (await submit(service, order(steps=20))).job_id
    running_job = await reached(service, job_id, State.EXECUTING)

    async def drawn() -> bool:
        view = await service.services.jobs.get(LOCAL, job_id)
        return view.has_preview and view.progress is not None

    await until(drawn)
    async with bus(own_valkey.url) as newcomer:
        latest = (await newcomer.signals.latest([job_id]))[job_id]
        assert latest.attempt == running_job.attempt
        assert latest.progress is not None
        assert await newcomer.signals.preview(job_id, latest.attempt) is not None
    page = await service.services.jobs.list(LOCAL, filters=JobFilters(), cursor=None, limit=10)
    assert page.items[0].progress is not None
    assert await service.services.watcher.preview(LOCAL, job_id) is not None
    await service.services.jobs.cancel(LOCAL, job_id)
    await ended(service, job_id)
    await until(lambda: not own_valkey.kept())
