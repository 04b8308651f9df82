"""One job's way, from submission to stored picture, and what its rows say afterwards."""

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
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code, Conflict, ServiceError
from comfy_api_service.domain.events import Preview, Progress
from comfy_api_service.domain.job import CacheUse, State
from comfy_api_service.services.views import Done, Durable, Moved, Snapshot
from comfy_api_service.signals.base import Note
from comfy_api_service.simulator import Simulator

pytestmark = pytest.mark.usefixtures("carrier")


async def test_a_job_succeeds_with_verified_bytes_and_one_prompt(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(batch_size=2))
        done = await ended(service, accepted.job_id)
        assert done.state is State.SUCCEEDED
        assert done.attempt == 1
        assert [(a.kind, a.media_type, a.width, a.height) for a in done.artifacts] == [
            ("image", "image/png", 64, 64)
        ] * 2
        assert done.params["seed"] is not None
        assert done.generation_time is not None
        assert sim.record.executions == 1
    check(tmp_path, [accepted.job_id])


async def test_a_listener_gets_snapshot_start_progress_and_the_end(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.hang()  # nothing happens before the snapshot
        accepted = await submit(service, order(steps=5))
        told = []
        async for notice in service.services.watcher.job(LOCAL, accepted.job_id):
            told.append(notice)
            sim.faults.resume()
    assert isinstance(told[0], Snapshot)
    assert [n.event.seq for n in told if isinstance(n, Durable | Done)] == [2, 3, 4]
    percents = [n.progress.percent for n in told if isinstance(n, Moved)]
    assert percents == sorted(percents)
    assert percents[-1] >= 90
    last = told[-1]
    assert isinstance(last, Done)
    assert last.view.job.state is State.SUCCEEDED
    assert last.view.links


async def test_progress_of_another_attempt_than_the_rows_is_not_shown(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        job_id = (await submit(service, order(steps=50))).job_id
        await reached(service, job_id, State.EXECUTING)
        jobs, signals = service.services.jobs, service.services.watcher._signals

        async def shown() -> bool:
            return (await jobs.get(LOCAL, job_id)).progress is not None

        await until(shown)
        for body in (Progress(77.0), Preview("image/png", b"x")):
            signals.publish(Note(job_id, LOCAL.id, 9, body))

        async def heard() -> bool:
            return (await signals.latest([job_id]))[job_id].attempt == 9

        await until(heard)
        view = await jobs.get(LOCAL, job_id)
        assert (view.progress, view.has_preview) == (None, False)


async def test_a_listener_that_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service)
        await ended(service, accepted.job_id)
        watch = service.services.watcher
        for after, expected in ((0, [1, 2, 3, 4]), (2, [3, 4]), (4, [4]), (99, [4])):
            told = [n async for n in watch.job(LOCAL, accepted.job_id, after=after)]
            assert isinstance(told[0], Snapshot)
            assert [n.event.seq for n in told if isinstance(n, Durable | Done)] == expected


async def test_two_prompts_are_kept_in_the_backends_queue_and_never_more(tmp_path: Path) -> None:
    async with Simulator(replace(FAST, seconds_per_step=0.02)) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(12)]
        for one in jobs:
            await ended(service, one)
        assert sim.record.max_queue == 2
    check(tmp_path, jobs)


async def test_the_same_request_again_is_answered_from_the_backends_cache(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        first = await ended(service, (await submit(service, order(seed=7))).job_id)
        again = await ended(service, (await submit(service, order(seed=7))).job_id)
        assert first.cache is CacheUse.NONE
        assert again.cache is CacheUse.FULL
        assert again.artifacts[0].sha256 == first.artifacts[0].sha256
    check(tmp_path)


async def test_a_cached_file_that_is_gone_makes_the_job_run_again(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        await ended(service, (await submit(service, order(seed=7))).job_id)
        await sim.faults.delete_outputs()
        again = await ended(service, (await submit(service, order(seed=7))).job_id)
        assert again.state is State.SUCCEEDED
        assert again.attempt == 2
    check(tmp_path)


async def test_jobs_that_wait_are_canceled_at_once_and_not_charged(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        accepted = await submit(service)
        view = await service.services.jobs.cancel(LOCAL, accepted.job_id)
        assert view.job.state is State.CANCELED
        with pytest.raises(Conflict):
            await service.services.jobs.cancel(LOCAL, accepted.job_id)
    check(tmp_path, [accepted.job_id])


async def test_a_running_job_is_canceling_until_the_backend_stopped(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        accepted = await submit(service, order(steps=100))
        await reached(service, accepted.job_id, State.EXECUTING)
        view = await service.services.jobs.cancel(LOCAL, accepted.job_id)
        assert view.job.canceling
        done = await ended(service, accepted.job_id)
        assert done.state is State.CANCELED
        await until(lambda: not queue_length(sim))
    check(tmp_path)


async def test_a_dispatched_job_is_taken_out_of_the_backends_queue(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        first = await submit(service, order(steps=60, seed=1))
        await reached(service, first.job_id, State.EXECUTING)
        second = await submit(service, order(steps=4, seed=2))
        await until(lambda: queue_length(sim) == 2)
        await service.services.jobs.cancel(LOCAL, second.job_id)
        assert (await ended(service, second.job_id)).state is State.CANCELED
        assert (await job(service, first.job_id)).state is State.EXECUTING
        assert sim.record.executions == 1
        await service.services.jobs.cancel(LOCAL, first.job_id)
        await ended(service, first.job_id)
    check(tmp_path)


async def test_a_deadline_ends_a_job_that_waits_and_one_that_runs(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        runs = await submit(service, order(steps=100, seed=1, deadline=1.5))
        await reached(service, runs.job_id, State.EXECUTING)
        await submit(service, order(steps=100, seed=2))
        waits = await submit(service, order(seed=3, deadline=0.5))
        for accepted in (waits, runs):
            done = await ended(service, accepted.job_id)
            assert done.error is not None
            assert done.error.code is Code.DEADLINE_EXCEEDED
    check(tmp_path, all_ended=False)


async def test_a_prompt_that_runs_too_long_is_stopped(tmp_path: Path) -> None:
    async with (
        Simulator(SLOW) as sim,
        running(tmp_path, sim.url, job_timeout=1.0, stall_timeout=5) as service,
    ):
        await online(service)
        done = await ended(service, (await submit(service, order(steps=100))).job_id)
        assert done.error is not None
        assert done.error.code is Code.JOB_TIMEOUT
        await until(lambda: not queue_length(sim))
    check(tmp_path)


async def test_the_limit_on_waiting_jobs_refuses_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9", queue_limit=2) as service:
        accepted = [await submit(service, order(seed=n)) for n in range(2)]
        with pytest.raises(ServiceError) as refused:
            await submit(service, order(seed=3))
        assert refused.value.code is Code.QUEUE_LIMIT_EXCEEDED
        assert refused.value.retry_after
        await service.services.jobs.cancel(LOCAL, accepted[0].job_id)
        await submit(service, order(seed=3))
    check(tmp_path, all_ended=False)


async def test_two_hundred_senders_with_a_hundred_keys_make_a_hundred_jobs(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        sent = [submit(service, order(seed=n % 100, key=f"key-{n % 100}")) for n in range(200)]
        answers = await asyncio.gather(*sent)
        ids = {accepted.job_id for accepted in answers}
        assert len(ids) == 100
        assert sum(accepted.replayed for accepted in answers) == 100
        with pytest.raises(ServiceError) as refused:
            await submit(service, order(seed=12345, key="key-1"))
        assert refused.value.code is Code.IDEMPOTENCY_KEY_REUSED
    check(tmp_path, ids, all_ended=False)


async def test_dedupe_gives_the_identical_job_and_requests_without_it_are_not_merged(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        first = await submit(service, order(seed=1))
        merged = await submit(service, order(seed=1, dedupe=True))
        apart = await submit(service, order(seed=1))
        other = await submit(service, order(seed=2, dedupe=True))
        assert merged.job_id == first.job_id
        assert merged.deduplicated
        assert len({first.job_id, apart.job_id, other.job_id}) == 3
        await service.services.jobs.cancel(LOCAL, first.job_id)
        await service.services.jobs.cancel(LOCAL, apart.job_id)
        anew = await submit(service, order(seed=1, dedupe=True))
        assert anew.job_id not in (first.job_id, apart.job_id)
    check(tmp_path, all_ended=False)


async def test_an_unknown_model_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        with pytest.raises(ServiceError) as refused:
            await submit(service, order(model="v1-5-pruned-emaonly.safetensor"))
        assert refused.value.code is Code.MODEL_NOT_FOUND
        assert "v1-5-pruned-emaonly.safetensors" in refused.value.details["nearest"]
    check(tmp_path)


async def test_jobs_accepted_before_any_inventory_is_known_are_checked_when_taken(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim:
        await sim.faults.die()
        async with running(tmp_path, sim.url) as service:
            good = await submit(service, order(model=None))
            bad = await submit(service, order(model="flux-nonsense.safetensors"))
            await sim.faults.restart()
            assert (await ended(service, good.job_id)).state is State.SUCCEEDED
            failed = await ended(service, bad.job_id)
            assert failed.error is not None
            assert failed.error.code is Code.MODEL_NOT_FOUND
    check(tmp_path)


async def test_a_node_that_takes_long_is_told_although_it_came_with_others(tmp_path: Path) -> None:
    """All its frames up to the node come at once: before the start is written, and faster than is told."""
    async with Simulator(replace(FAST, seconds_per_load=600)) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        await _told_of(service, (await submit(service)).job_id, "CheckpointLoaderSimple")


async def test_a_sampler_is_told_before_its_first_step(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        await ended(service, (await submit(service)).job_id)
        sim.faults.stall()
        await _told_of(service, (await submit(service, order("a heron"))).job_id, "KSampler")


async def _told_of(service: Service, job_id: str, node_class: str) -> None:
    async def told() -> bool:
        progress = (await service.services.jobs.get(LOCAL, job_id)).progress
        return progress is not None and progress.message == node_class

    await until(told)


async def test_higher_priority_goes_first(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim:
        await sim.faults.die()
        async with running(tmp_path, sim.url) as service:
            low = [await submit(service, order(seed=n, priority=-1)) for n in range(5)]
            high = [await submit(service, order(seed=10 + n, priority=5)) for n in range(5)]
            await sim.faults.restart()
            ends = {}
            for accepted in (*low, *high):
                done = await ended(service, accepted.job_id)
                ends[accepted.job_id] = done.started_at or 0
            assert max(ends[a.job_id] for a in high) < min(ends[a.job_id] for a in low)
    check(tmp_path)


async def test_retry_makes_a_new_job_with_the_same_seed(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        first = await submit(service)
        with pytest.raises(Conflict):
            await service.services.submitter.retry(LOCAL, first.job_id)
        done = await ended(service, first.job_id)
        again = await service.services.submitter.retry(LOCAL, first.job_id)
        assert again.job_id != first.job_id
        assert (await ended(service, again.job_id)).params["seed"] == done.params["seed"]
    check(tmp_path)
