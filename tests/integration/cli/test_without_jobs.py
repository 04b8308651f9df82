"""`comfy-api generate` against the real service with JOBS_ENABLED=false: by the call that waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import SMALL, serving
from tests.support.stack import FAST, SLOW, online, reached, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.cli.client import api as client
from comfy_api_service.cli.client.api import Api
from comfy_api_service.cli.client.making import make
from comfy_api_service.cli.client.refusals import JobsSwitchedOff, Refused
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.job import Job, State
from comfy_api_service.simulator import Simulator, SimulatorSettings

Serve = Callable[..., AbstractAsyncContextManager[tuple[Simulator, Service, Api]]]


class Shown:
    """A display that remembers."""

    previews = False

    def __init__(self) -> None:
        self.words: list[str] = []

    def show(self, event: Mapping[str, Any]) -> None:
        self.words.append(event["status"])


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def begin(speed: SimulatorSettings = FAST) -> AsyncIterator[tuple[Simulator, Service, Api]]:
        async with Simulator(speed) as sim, running(tmp_path, sim.url, jobs_enabled=False) as service:
            await online(service)
            async with serving(service.app) as url, Api(url) as api:
                yield sim, service, api

    return begin


async def jobs(service: Service) -> list[Job]:
    page = await service.services.jobs.list(LOCAL, filters=JobFilters(), cursor=None, limit=10)
    return [view.job for view in page.items]


async def test_pictures_are_made_and_saved(serve: Serve, tmp_path: Path) -> None:
    shown = Shown()
    async with serve() as (_, _, api):
        made = await make(api, {**SMALL, "num_images": 2}, shown)
        paths = await made.save(tmp_path / "fox.png", force=False)
    assert [path.name for path in paths] == ["fox_1.png", "fox_2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert shown.words == ["succeeded"]


async def test_a_long_job_is_waited_for_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GENERATE_SECONDS", 1)
    shown = Shown()
    async with serve(SLOW) as (_, service, api):
        made = await make(api, {**SMALL, "steps": 8}, shown)
        assert [job.id for job in await jobs(service)] == [made.job_id]
    assert shown.words[-1] == "succeeded"
    assert set(shown.words[:-1]) == {"running"}


async def test_who_leaves_cancels_the_job(serve: Serve) -> None:
    async with serve(SLOW) as (_, service, api):
        making = asyncio.create_task(make(api, {**SMALL, "steps": 100}, Shown()))

        async def there() -> bool:
            return bool(await jobs(service))

        await until(there)
        (job,) = await jobs(service)
        await reached(service, job.id, State.EXECUTING)
        making.cancel()
        await reached(service, job.id, State.CANCELED)


async def test_without_a_backend_it_waits_for_one(serve: Serve) -> None:
    async with serve() as (sim, service, api):
        await sim.faults.die()

        async def away() -> bool:
            return (await service.pool.refresh()).online == 0

        await until(away)
        shown = Shown()
        making = asyncio.create_task(make(api, SMALL, shown))
        await until(lambda: bool(shown.words))
        await sim.faults.restart()
        await making
    assert shown.words[0] == "waiting for a ComfyUI server"
    assert shown.words[-1] == "succeeded"


async def test_the_jobs_error_ends_it(serve: Serve) -> None:
    async with serve() as (sim, _, api):
        sim.faults.fail_node("KSampler")
        with pytest.raises(Refused) as caught:
            await make(api, SMALL, Shown())
    assert caught.value.code == "EXECUTION_FAILED"


async def test_what_needs_jobs_says_why_not(serve: Serve) -> None:
    async with serve() as (_, _, api):
        with pytest.raises(JobsSwitchedOff) as caught:
            await api.jobs(limit=1, filters={})
    assert "JOBS_ENABLED" in caught.value.message
    assert caught.value.remedy == "Use `comfy-api generate`, or start the service with JOBS_ENABLED=true."
