"""The service stops and starts again: what backends did meanwhile is taken over where it is."""

import asyncio
from dataclasses import replace
from pathlib import Path

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

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.bootstrap.folder import DataFolderInUse
from comfy_api_service.bootstrap.service import service as opened
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.domain.job import State
from comfy_api_service.settings import Settings
from comfy_api_service.simulator import Simulator

MIDDLING = replace(FAST, seconds_per_step=0.1)


async def test_queued_running_and_finished_ones_all_succeed_and_none_is_run_twice(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            jobs = [(await submit(service, order(seed=n, steps=20))).job_id for n in range(3)]
            await reached(service, jobs[0], State.EXECUTING)
            await until(lambda: queue_length(sim) == 2)
        assert queue_length(sim) == 2
        await until(lambda: sim.record.executions == 2)  # the first ended while nobody looked
        async with running(tmp_path, sim.url) as service:
            for one in jobs:
                done = await ended(service, one)
                assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
        assert sim.record.executions == 3
        assert all(count == 1 for count in sim.record.accepted.values())
    check(tmp_path, jobs)


async def test_a_prompt_that_is_gone_after_both_restarted_runs_again(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            accepted = await submit(service, order(steps=20))
            await reached(service, accepted.job_id, State.EXECUTING)
        await sim.faults.die()
        await sim.faults.restart()
        async with running(tmp_path, sim.url) as service:
            await until(lambda: _attempts(service, accepted.job_id, 2))
            await service.services.jobs.cancel(LOCAL, accepted.job_id)
            await ended(service, accepted.job_id)
    check(tmp_path)


async def _attempts(service: Service, job_id: str, number: int) -> bool:
    return (await job(service, job_id)).attempt == number


async def test_a_cancel_mark_is_honoured_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Simulator(SLOW) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            accepted = await submit(service, order(steps=200))
            await reached(service, accepted.job_id, State.EXECUTING)
            monkeypatch.setattr(service.services.jobs._signals, "ask_cancel", lambda _: None)
            await service.services.jobs.cancel(LOCAL, accepted.job_id)
        async with running(tmp_path, sim.url) as service:
            assert (await ended(service, accepted.job_id)).state is State.CANCELED
        assert queue_length(sim) == 0
    check(tmp_path)


async def test_jobs_of_a_backend_that_left_the_settings_go_on_elsewhere(tmp_path: Path) -> None:
    async with Simulator(SLOW) as left, Simulator(FAST) as stays:
        async with running(tmp_path, left.url) as service:
            await online(service)
            accepted = await submit(service, order(steps=50))
            await reached(service, accepted.job_id, State.EXECUTING)
        async with running(tmp_path, stays.url) as service:
            assert (await ended(service, accepted.job_id)).state is State.SUCCEEDED
    check(tmp_path)


async def test_draining_lets_running_jobs_finish_and_takes_no_more(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url, shutdown_grace=20) as service:
        await online(service)
        jobs = [(await submit(service, order(seed=n, steps=5))).job_id for n in range(4)]
        await reached(service, jobs[0], State.EXECUTING)
        await until(lambda: queue_length(sim) == 2)
        await service.drain()
        states = [(await job(service, one)).state for one in jobs]
        assert states == [State.SUCCEEDED, State.SUCCEEDED, State.READY, State.READY]
    check(tmp_path, jobs, all_ended=False)


async def test_two_processes_never_work_on_one_data_folder(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9"):
        with pytest.raises(DataFolderInUse):
            async with opened(Settings(_env_file=None, data_dir=tmp_path)):
                pass
    async with running(tmp_path, "http://127.0.0.1:9"):
        await asyncio.sleep(0)


class Ahead(SystemClock):
    """A clock that somebody set two hours forward."""

    def now(self) -> float:
        return super().now() + 7200


async def test_a_clock_that_was_set_forward_meanwhile_ends_nothing_that_runs(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            job_id = (await submit(service, order(steps=12))).job_id
            await reached(service, job_id, State.EXECUTING)
        async with running(tmp_path, sim.url, clock=Ahead()) as service:
            done = await ended(service, job_id)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
        assert sim.record.executions == 1
    check(tmp_path, [job_id])
