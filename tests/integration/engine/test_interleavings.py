"""Moments in which two things happen at once: posts in flight, stores that are down, listeners that lag."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.stack import (
    FAST,
    SLOW,
    ended,
    job,
    online,
    order,
    queue_length,
    reached,
    running,
    submit,
    until,
)

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BadAnswer
from comfy_api_service.db import claims, transitions
from comfy_api_service.db import jobs as job_rows
from comfy_api_service.db.base import CommitUnknown, Database
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import State, Status
from comfy_api_service.services.views import Done
from comfy_api_service.simulator import Simulator
from comfy_api_service.storage.base import StorageUnavailable
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.worker import oversight
from comfy_api_service.worker import run as run_module

MIDDLING = replace(FAST, seconds_per_step=0.05)
ONE_MODEL = {"checkpoints": ("other.safetensors",)}


def hold_post(monkeypatch: pytest.MonkeyPatch, release: asyncio.Event) -> None:
    """The first POST waits, on its way, until it is released."""
    real = ComfyClient.submit
    held: list[str] = []

    async def submit_later(self: ComfyClient, **given: Any) -> int:
        if not held:
            held.append(given["prompt_id"])
            await release.wait()
        return await real(self, **given)

    monkeypatch.setattr(ComfyClient, "submit", submit_later)


async def test_a_cancel_while_the_post_is_in_flight_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    hold_post(monkeypatch, release)
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=200))
        await reached(service, accepted.job_id, State.DISPATCHED)
        await service.services.jobs.cancel(LOCAL, accepted.job_id)
        await until(lambda: any(run.why for run in service.worker.fleet.drivers[0]._runs.values()))
        release.set()
        assert (await ended(service, accepted.job_id)).state is State.CANCELED
        await until(lambda: queue_length(sim) == 0)
    check(tmp_path)


async def test_a_post_that_takes_longer_than_the_grace_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "POST_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.1)
    release = asyncio.Event()
    hold_post(monkeypatch, release)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service)
        await reached(service, accepted.job_id, State.DISPATCHED)
        looked = sim.record.request_counts["GET /queue"]
        await until(lambda: sim.record.request_counts["GET /queue"] >= looked + 2)
        release.set()
        done = await ended(service, accepted.job_id)
        assert (done.state, done.attempt, sim.record.executions) == (State.SUCCEEDED, 1, 1)
    check(tmp_path)


async def test_a_late_compiled_job_keeps_its_need_when_its_backend_dies(tmp_path: Path) -> None:
    async with Simulator(SLOW) as has, Simulator(replace(FAST, models=ONE_MODEL)) as lacks:
        await has.faults.die()
        await lacks.faults.die()
        async with running(tmp_path, has.url, lacks.url) as service:
            accepted = await submit(service, order(steps=40, model=None))
            await has.faults.restart()
            await reached(service, accepted.job_id, State.EXECUTING)
            await lacks.faults.restart()
            await online(service, 2)
            await has.faults.die()
            await reached(service, accepted.job_id, State.READY)
            await has.faults.restart()
            again = await reached(service, accepted.job_id, State.EXECUTING)
            assert again.executed == 2  # an attempt more may have found the backend still away
            assert lacks.record.executions == 0
            await service.services.jobs.cancel(LOCAL, accepted.job_id)
            await ended(service, accepted.job_id)
    check(tmp_path)


async def test_the_first_backend_that_answers_does_not_decide_for_the_second(tmp_path: Path) -> None:
    async with Simulator(replace(FAST, models=ONE_MODEL)) as lacks, Simulator(FAST) as has:
        await lacks.faults.die()
        await has.faults.die()
        async with running(tmp_path, lacks.url, has.url) as service:
            accepted = await submit(service, order(model="flux1-dev.safetensors"))
            await lacks.faults.restart()
            await until(lambda: _attempts(service, accepted.job_id, 1))
            await has.faults.restart()
            assert (await ended(service, accepted.job_id)).state is State.SUCCEEDED
    check(tmp_path)


async def _attempts(service: Any, job_id: str, least: int) -> bool:
    return (await job(service, job_id)).attempt >= least


def break_store(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`put` fails until the list is emptied of its mark; counts the failures."""
    real = LocalStorage.put
    failing = [0]

    async def put(self: LocalStorage, *args: Any, **given: Any) -> Any:
        if failing:
            failing[0] += 1
            raise StorageUnavailable("The store is away.")
        return await real(self, *args, **given)

    monkeypatch.setattr(LocalStorage, "put", put)
    return failing


async def test_a_store_that_is_down_holds_the_results_and_stops_the_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = break_store(monkeypatch)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(12)]
        await until(lambda: failing[0] >= 4)
        assert sim.record.executions <= 3
        failing.clear()
        for one in jobs:
            done = await ended(service, one)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    check(tmp_path, jobs)


async def test_cancel_and_deadline_end_a_job_whose_result_waits_for_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = break_store(monkeypatch)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        canceled = await submit(service, order(seed=1))
        overdue = await submit(service, order(seed=2, deadline=1.5))
        await until(lambda: failing[0] >= 2)
        await service.services.jobs.cancel(LOCAL, canceled.job_id)
        assert (await ended(service, canceled.job_id)).state is State.CANCELED
        late = await ended(service, overdue.job_id)
        assert late.error is not None
        assert late.error.code is Code.DEADLINE_EXCEEDED
    check(tmp_path)


async def test_a_listener_to_all_jobs_that_falls_behind_hears_every_end(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        await service.worker.drain(0)
        jobs = {(await submit(service, order(seed=n))).job_id for n in range(60)}
        notices = service.services.watcher.account(LOCAL)
        for _ in jobs:  # the snapshots
            await anext(notices)
        for one in jobs:
            await service.services.jobs.cancel(LOCAL, one)
        for n in range(100):  # more than a mailbox holds
            other = await submit(service, order(seed=1000 + n))
            await service.services.jobs.cancel(LOCAL, other.job_id)
        heard: set[str] = set()
        async with asyncio.timeout(20):
            while not jobs <= heard:
                notice = await anext(notices)
                if isinstance(notice, Done):
                    heard.add(notice.event.job_id)
        await notices.aclose()
    check(tmp_path)


async def test_a_repeated_output_is_one_picture(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.repeat_frames(types=("executed",))
        done = await ended(service, (await submit(service)).job_id)
        assert len(done.artifacts) == 1
    check(tmp_path)


async def test_prompts_of_a_backend_that_runs_nothing_do_not_run_when_it_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "ZOMBIE_SECONDS", 1.0)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.3)
    async with Simulator(FAST) as zombie, Simulator(FAST) as sound:
        zombie.faults.accept_and_run_nothing()
        async with running(tmp_path, zombie.url, sound.url) as service:
            await online(service, 2)
            jobs = [(await submit(service, order(seed=n))).job_id for n in range(6)]
            for one in jobs:
                await ended(service, one)
            await until(lambda: queue_length(zombie) == 1)  # the canary
            zombie.faults.accept_and_run_nothing(on=False)
            await until(lambda: zombie.record.executions == 1)
            await online(service, 2)
    check(tmp_path, jobs)


async def test_a_reboot_of_service_and_backend_together_is_nobodys_fault(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            accepted = await submit(service, order(steps=40))
            await reached(service, accepted.job_id, State.EXECUTING)
        for attempt in (2, 3):
            await sim.faults.die()
            await sim.faults.restart()
            async with running(tmp_path, sim.url) as service:
                await until(lambda: _executes(service, accepted.job_id, attempt))  # noqa: B023
        async with running(tmp_path, sim.url) as service:
            assert (await job(service, accepted.job_id)).state is not State.FAILED
    check(tmp_path, all_ended=False)


async def _executes(service: Any, job_id: str, attempt: int) -> bool:
    found = await job(service, job_id)
    return (found.state, found.attempt) == (State.EXECUTING, attempt)


async def test_a_backend_that_answers_every_post_with_an_error_ends_the_job_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "POST_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(transitions, "REFUSALS", 1)

    async def refuse(_self: ComfyClient, **_: Any) -> int:
        raise BadAnswer("The backend failed.", status=500)

    monkeypatch.setattr(ComfyClient, "submit", refuse)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service, order(max_attempts=1))).job_id)
        assert done.error is not None
        assert (done.error.code, done.attempt) == (Code.ATTEMPTS_EXHAUSTED, 2)
    check(tmp_path)


async def test_jobs_canceled_while_they_wait_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        accepted = await submit(service)
        await service.services.jobs.cancel(LOCAL, accepted.job_id)
        counted = service.services.metrics.jobs.labels(Status.CANCELED.value)
        assert counted._value.get() == 1
        assert await service.db.read(lambda tx: job_rows.events_after(tx, LOCAL.id, accepted.job_id, 1))


async def test_draining_twice_takes_the_grace_once(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url, shutdown_grace=0.5) as service:
        await online(service)
        accepted = await submit(service, order(steps=100))
        await reached(service, accepted.job_id, State.EXECUTING)
        await service.drain()
        drained = asyncio.create_task(service.drain())
        await asyncio.sleep(0)
        assert drained.done()
    check(tmp_path, all_ended=False)


async def test_a_claim_whose_commit_nobody_heard_of_is_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = claims.next_job
    lost: list[str] = []

    async def next_job(db: Database, claimant: claims.Claimant, **given: Any) -> Any:
        claimed = await real(db, claimant, **given)
        if isinstance(claimed, claims.Claimed) and not lost:
            lost.append(claimed.job_id)
            raise CommitUnknown("The connection is gone.")
        return claimed

    monkeypatch.setattr(claims, "next_job", next_job)
    monkeypatch.setattr(run_module, "POST_GRACE_SECONDS", 60.0)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service)).job_id)
        assert lost == [done.id]
        assert (done.state, done.attempt, sim.record.executions) == (State.SUCCEEDED, 1, 1)
    check(tmp_path)
