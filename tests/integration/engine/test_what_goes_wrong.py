"""Backends that die, lie, stall or fall silent: no job is lost, none is done twice."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.checker import check
from tests.support.files import files_below
from tests.support.graphs import flat_picture, submit_graph
from tests.support.stack import (
    FAST,
    SLOW,
    ended,
    interrupt,
    job,
    online,
    order,
    reached,
    running,
    submit,
    until,
)

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker import oversight

MIDDLING = replace(FAST, seconds_per_step=0.05)


async def test_a_backend_that_dies_in_mid_job_runs_it_again_when_it_is_back(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=20))
        await reached(service, accepted.job_id, State.EXECUTING)
        await sim.faults.die()
        await sim.faults.restart(after=1.0)
        done = await ended(service, accepted.job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 2
    check(tmp_path, [accepted.job_id])


async def test_another_backend_takes_the_job_within_fifteen_seconds(tmp_path: Path) -> None:
    async with (
        Simulator(MIDDLING) as one,
        Simulator(MIDDLING) as two,
        running(tmp_path, one.url, two.url) as service,
    ):
        await online(service, 2)
        accepted = await submit(service, order(steps=20))
        first = await reached(service, accepted.job_id, State.EXECUTING)
        dying = one if one.record.executions else two
        await dying.faults.die()
        done = await ended(service, accepted.job_id, limit=15)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 2
        assert done.backend_id != first.backend_id
    check(tmp_path, [accepted.job_id])


async def test_nothing_is_saved_up_while_the_backend_is_away(tmp_path: Path) -> None:
    """The lane enters anew with the backend, before anything is claimed for it."""
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        await sim.faults.die()

        async def away() -> bool:
            return (await service.pool.refresh()).online == 0

        await until(away)
        accepted = await submit(service)
        await service.db.write(lambda tx: tx.run("UPDATE backends SET start_tag = 100000"))
        await sim.faults.restart()
        await ended(service, accepted.job_id)
        lane = await service.db.read(lambda tx: tx.one("SELECT vtime FROM lanes"))
        assert lane is not None
        assert lane["vtime"] > 99_000


async def test_a_job_that_took_two_backends_down_is_not_run_again(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=50))
        for attempt in (1, 2):
            await _executing(service, accepted.job_id, attempt)
            await sim.faults.die()
            await sim.faults.restart()
        done = await ended(service, accepted.job_id)
        assert done.error is not None
        assert done.error.code is Code.POISON_JOB
    check(tmp_path)


async def _executing(service: Service, job_id: str, attempt: int) -> None:
    async def there() -> bool:
        found = await job(service, job_id)
        return (found.state, found.attempt) == (State.EXECUTING, attempt)

    await until(there)


async def test_a_post_whose_answer_never_came_is_looked_up_not_repeated(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.drop_answer_after_accepting()
        done = await ended(service, (await submit(service)).job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 1
        assert sim.record.executions == 1
    check(tmp_path)


async def test_a_silent_socket_is_overruled_by_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.5)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.silence_socket()
        done = await ended(service, (await submit(service)).job_id)
        assert done.state is State.SUCCEEDED
        assert sim.record.executions == 1
    check(tmp_path)


@pytest.mark.parametrize("types", [("executed",), ("execution_start",), ("execution_success",), ()])
async def test_lost_frames_lose_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, types: tuple[str, ...]
) -> None:
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.5)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.lose_frames(types=types)
        done = await ended(service, (await submit(service, order(batch_size=2))).job_id)
        assert done.state is State.SUCCEEDED
        assert len(done.artifacts) == 2
    check(tmp_path)


async def test_a_result_that_was_fetched_for_a_lost_prompt_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.5)
    stored = tmp_path / "artifacts" / "jobs"
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.lose_frames(types=("execution_success",))
        accepted = await submit(service)
        await until(lambda: stored / accepted.job_id / "1" / "image_0.png" in files_below(stored))
        sim.faults.heal()
        sim.faults.forget_history()
        done = await ended(service, accepted.job_id)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
        assert [path.name for path in (stored / accepted.job_id).iterdir()] == ["2"]
    check(tmp_path)


async def test_what_the_store_prepared_for_a_job_that_failed_is_removed(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.fail_node("VAEDecode")
        accepted = await submit(service, order(steps=20))
        folder = tmp_path / "artifacts" / "jobs" / accepted.job_id
        await until(lambda: _is_there(folder))
        assert (await ended(service, accepted.job_id)).state is State.FAILED
        await until(lambda: _is_there(folder, wanted=False))
    check(tmp_path)


async def _is_there(folder: Path, *, wanted: bool = True) -> bool:
    return await asyncio.to_thread(folder.exists) is wanted


async def test_repeated_and_reordered_frames_change_nothing(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.repeat_frames()
        sim.faults.reorder_frames()
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(5)]
        for one in jobs:
            assert (await ended(service, one)).state is State.SUCCEEDED
        assert sim.record.executions == 5
    check(tmp_path, jobs)


async def test_a_cut_socket_is_opened_again_and_nothing_is_run_twice(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=20))
        await reached(service, accepted.job_id, State.EXECUTING)
        sim.faults.close_sockets()
        done = await ended(service, accepted.job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 1
        assert sim.record.executions == 1
    check(tmp_path)


async def test_a_node_that_fails_fails_the_job_by_name(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.fail_node("KSampler", "could not open /opt/models/secret/x.ckpt")
        done = await ended(service, (await submit(service)).job_id)
        assert done.error is not None
        assert done.error.code is Code.EXECUTION_FAILED
        assert done.error.node_id is not None
        assert "/opt" not in done.error.message
    check(tmp_path)


async def test_out_of_memory_is_tried_once_more_after_freeing(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.out_of_memory(times=1)
        done = await ended(service, (await submit(service, order(seed=1))).job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 2
        assert any(request.path == "/free" for request in sim.record.requests)
        sim.faults.out_of_memory(times=None)
        failed = await ended(service, (await submit(service, order(seed=2))).job_id)
        assert failed.error is not None
        assert failed.error.code is Code.OUT_OF_MEMORY
        assert failed.attempt == 2
    check(tmp_path)


async def test_out_of_memory_goes_to_another_backend(tmp_path: Path) -> None:
    async with (
        Simulator(FAST) as small,
        Simulator(FAST) as large,
        running(tmp_path, small.url, large.url) as service,
    ):
        await online(service, 2)
        small.faults.out_of_memory(times=None)
        jobs = [await submit(service, order(seed=seed)) for seed in range(4)]
        ends = [await ended(service, one.job_id) for one in jobs]
        assert [one.state for one in ends] == [State.SUCCEEDED] * len(jobs)
        assert {2} <= {one.attempt for one in ends} <= {1, 2}
        assert any(request.path == "/free" for request in small.record.requests)
    check(tmp_path)


async def test_a_half_answer_to_view_is_asked_again(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.halve_responses(1, "/view")
        done = await ended(service, (await submit(service)).job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 1
    check(tmp_path)


async def test_a_backend_that_accepts_and_runs_nothing_is_noticed(
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
                assert (await ended(service, one)).state is State.SUCCEEDED
            assert not zombie.record.executions
    check(tmp_path, jobs)


async def test_a_prompt_that_stalls_goes_on_elsewhere(tmp_path: Path) -> None:
    async with (
        Simulator(FAST) as one,
        Simulator(FAST) as two,
        running(tmp_path, one.url, two.url, stall_timeout=1.0) as service,
    ):
        await online(service, 2)
        one.faults.stall()
        two.faults.stall()
        accepted = await submit(service, order(steps=10))
        first = await reached(service, accepted.job_id, State.EXECUTING)
        for sim in (one, two):
            if not sim.record.executions:
                sim.faults.stall(on=False)
        done = await ended(service, accepted.job_id)
        assert done.state is State.SUCCEEDED
        assert done.backend_id != first.backend_id
    check(tmp_path)


async def test_an_interrupt_by_somebody_beside_us_runs_the_job_again(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=20))
        await reached(service, accepted.job_id, State.EXECUTING)
        interrupt(sim)
        done = await ended(service, accepted.job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 2
    check(tmp_path)


async def test_a_backend_that_is_away_for_a_while_loses_no_waiting_job(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(20)]
        await asyncio.sleep(0.05)
        await sim.faults.die()
        await sim.faults.restart(after=0.5)
        for one in jobs:
            assert (await ended(service, one)).state is State.SUCCEEDED
    check(tmp_path, jobs)


async def test_attempts_run_out(tmp_path: Path) -> None:
    async with Simulator(MIDDLING) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=100, max_attempts=2))
        for attempt in (1, 2):
            await _executing(service, accepted.job_id, attempt)
            interrupt(sim)
        done = await ended(service, accepted.job_id)
        assert done.error is not None
        assert done.error.code is Code.ATTEMPTS_EXHAUSTED
    check(tmp_path)


async def test_cancel_wins_over_a_lost_attempt(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=100))
        await reached(service, accepted.job_id, State.EXECUTING)
        await sim.faults.die()
        await service.services.jobs.cancel(LOCAL, accepted.job_id)
        await sim.faults.restart()
        assert (await ended(service, accepted.job_id)).state is State.CANCELED
    check(tmp_path)


async def test_a_prompt_that_killed_its_backends_worker_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to nowhere in an input that the class does not have: real servers accept it and die of it, after
    `execution_cached`. The prompt stays in `queue_running` for ever, and HTTP still answers.
    """
    monkeypatch.setattr(oversight, "ZOMBIE_SECONDS", 1.0)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.3)
    deadly = flat_picture(_salt=["99", 0])
    async with (
        Simulator(FAST) as one,
        Simulator(FAST) as two,
        Simulator(FAST) as three,
        running(tmp_path, one.url, two.url, three.url) as service,
    ):
        await online(service, 3)
        killer = await submit_graph(service, deadly)
        await reached(service, killer, State.EXECUTING)
        others = [await submit_graph(service, flat_picture(color=n)) for n in range(6)]
        for other in others:
            assert (await ended(service, other)).state is State.SUCCEEDED
        done = await ended(service, killer)
        assert done.error is not None
        assert (done.error.code, done.executed) == (Code.POISON_JOB, 2)
    check(tmp_path)
