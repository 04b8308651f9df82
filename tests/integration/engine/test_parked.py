"""The S3 store dies, hangs and comes back: results wait on the disk, and are generated once."""

import asyncio
import shutil
from typing import Any

import pytest
from tests.support.api import connected
from tests.support.collector import collector
from tests.support.stack import FAST, ended, job, order, reached, submit, until
from tests.support.world import World

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import work
from comfy_api_service.db.base import Reader
from comfy_api_service.db.work import OpenAttempt
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator
from comfy_api_service.storage import s3
from comfy_api_service.storage.base import StorageUnavailable
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.storage.s3 import S3Storage
from comfy_api_service.worker import driver


async def park(service: Service, world: World, **given: Any) -> str:
    """A job whose result waits on the disk."""
    job_id = (await submit(service, order(**given))).job_id
    await until_parked(service, world, job_id)
    return job_id


async def until_parked(service: Service, world: World, job_id: str) -> None:
    await reached(service, job_id, State.STORING)
    await until(lambda: "parcel.json" in world.parked())


async def test_results_go_to_the_bucket(world: World) -> None:
    async with world.service() as service:
        done = await ended(service, (await submit(service, order(batch_size=2))).job_id)
        assert world.kept() == sorted(artifact.key for artifact in done.artifacts)
        assert len(done.artifacts) == 2
        assert world.parked() == []
        report = await service.services.health.report()
        assert report.storage == "connected"
    world.check(done.id)
    assert not (world.folder / "artifacts").exists()


async def test_a_store_that_was_killed_gets_the_result_when_it_is_back(world: World) -> None:
    async with world.service() as service:
        world.store.kill()
        job_id = await park(service, world)
        await world.lose_history()
        assert (await job(service, job_id)).state is State.STORING
        world.store.start()
        done = await ended(service, job_id)
        assert (done.state, done.attempt, world.sim.record.executions) == (State.SUCCEEDED, 1, 1)
        await until(lambda: world.parked() == [])
    world.check(job_id)


async def test_a_store_that_hangs_gets_the_result_when_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 0.5)
    async with world.service() as service:
        world.store.pause()
        job_id = await park(service, world)
        world.store.resume()
        done = await ended(service, job_id)
        assert done.state is State.SUCCEEDED
        assert world.sim.record.executions == 1
    # Uploads that were given up meanwhile may reach the store after the one that counted: the same bytes.
    await until(lambda: world.kept() == [artifact.key for artifact in done.artifacts])
    world.check(job_id)


async def test_work_goes_on_while_the_store_is_away(world: World) -> None:
    async with world.service() as service:
        world.store.kill()
        jobs = [(await submit(service, order(seed=n))).job_id for n in range(6)]
        for one in jobs:
            await reached(service, one, State.STORING)
        await until(lambda: world.parked().count("parcel.json") == 6)
        metrics = service.services.metrics
        await until(lambda: metrics.parked._value.get() == 6)
        assert metrics.parked_bytes._value.get() > 0
        world.store.start()
        for one in jobs:
            assert (await ended(service, one)).state is State.SUCCEEDED
        await until(lambda: metrics.parked_ends.labels("delivered")._value.get() == 6)
        await until(lambda: (metrics.parked._value.get(), metrics.parked_bytes._value.get()) == (0, 0))
        assert world.sim.record.executions == 6
    world.check(*jobs)


async def test_a_result_waits_through_a_restart_though_the_backend_forgot_it(world: World) -> None:
    world.store.kill()
    async with world.service() as service:
        job_id = await park(service, world, batch_size=2)
    await world.lose_history()
    async with world.service() as service:
        assert (await job(service, job_id)).state is State.STORING
        assert service.worker.fleet.drivers[0].job_ids() == set()
        world.store.start()
        done = await ended(service, job_id)
        assert (done.state, done.attempt, len(done.artifacts)) == (State.SUCCEEDED, 1, 2)
        assert world.sim.record.executions == 1
        await until(lambda: world.parked() == [])
    world.check(job_id)


async def test_a_process_that_ends_while_a_parcel_is_written_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalStorage.put
    written = asyncio.Event()

    async def put_and_hang(self: LocalStorage, key: str, *args: Any, **given: Any) -> Any:
        stored = await put(self, key, *args, **given)
        if key.endswith("parcel.json"):
            written.set()
            await asyncio.Event().wait()
        return stored

    world.store.kill()
    async with world.service() as service:
        monkeypatch.setattr(LocalStorage, "put", put_and_hang)
        job_id = (await submit(service)).job_id
        await written.wait()
    monkeypatch.undo()
    await world.lose_history()
    world.store.start()
    async with world.service() as service:
        done = await ended(service, job_id)
        assert (done.state, done.attempt, world.sim.record.executions) == (State.SUCCEEDED, 1, 1)
    world.check(job_id)


async def test_a_result_that_is_half_in_the_store_waits_with_the_other_half(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = S3Storage.put

    async def put_then_die(self: S3Storage, *args: Any, **given: Any) -> Any:
        stored = await put(self, *args, **given)
        monkeypatch.undo()
        world.store.kill()
        return stored

    async with world.service() as service:
        monkeypatch.setattr(S3Storage, "put", put_then_die)
        job_id = await park(service, world, batch_size=2)
        assert world.parked() == ["image_1.png", "parcel.json"]
        world.store.start()
        assert len((await ended(service, job_id)).artifacts) == 2
    world.check(job_id)


async def test_a_cancel_ends_the_waiting(world: World) -> None:
    async with world.service() as service:
        world.store.kill()
        job_id = await park(service, world)
        await service.services.jobs.cancel(LOCAL, job_id)
        assert (await ended(service, job_id)).state is State.CANCELED
        await until(lambda: world.parked() == [])
        assert service.services.metrics.parked_ends.labels("canceled")._value.get() == 1
    world.check(job_id)
    assert world.kept() == []


async def test_a_deadline_ends_the_waiting(world: World) -> None:
    async with world.service() as service:
        world.store.kill()
        job_id = await park(service, world, deadline=2.0)
        done = await ended(service, job_id)
        assert done.error is not None
        assert done.error.code is Code.DEADLINE_EXCEEDED
        await until(lambda: world.parked() == [])
        assert service.services.metrics.parked_ends.labels("canceled")._value.get() == 1
    world.check(job_id)


async def test_no_result_waits_for_ever(world: World) -> None:
    async with world.service(parked_timeout=0.5) as service:
        world.store.kill()
        done = await ended(service, (await submit(service)).job_id)
        assert done.error is not None
        assert done.error.code is Code.STORAGE_FAILED
        await until(lambda: world.parked() == [])
        assert service.services.metrics.parked_ends.labels("expired")._value.get() == 1
    world.check(done.id)


@pytest.mark.parametrize("limit", [0, 100])
async def test_what_has_no_room_on_the_disk_waits_with_the_backend_and_stops_the_claims(
    world: World, limit: int
) -> None:
    async with world.service(parked_limit=limit) as service:
        world.store.kill()
        settler, metrics = service.worker.fleet.drivers[0]._settler, service.services.metrics
        first = (await submit(service, order(seed=1))).job_id
        await reached(service, first, State.STORING)
        await until(lambda: metrics.uploads.labels("failed")._value.get() >= 3)
        assert settler.storage_fails
        second = (await submit(service, order(seed=2))).job_id
        await until(lambda: metrics.uploads.labels("failed")._value.get() >= 4)
        assert world.parked() == []
        assert (await job(service, second)).state is State.READY
        world.store.start()
        for one in (first, second):
            assert (await ended(service, one)).state is State.SUCCEEDED
        assert world.sim.record.executions == 2
        assert metrics.parked_ends.labels("delivered")._value.get() == 0
        assert metrics.parked_bytes._value.get() == 0
    world.check(first, second)


async def test_a_file_that_was_damaged_on_the_disk_is_made_again(world: World) -> None:
    """Its trace has the tries to deliver it and the end of the lost attempt, below that, and the other attempt."""
    world.store.kill()
    with collector() as collected:
        traced = {"otel_exporter_otlp_endpoint": collected.url}
        async with world.service(**traced) as service, connected(service.app) as client:
            body = {"prompt": "a lighthouse", "steps": 4, "width": 64, "height": 64}
            job_id = (await client.post("/api/v1/jobs", json=body)).json()["job_id"]
            await until_parked(service, world, job_id)
        (waiting,) = (world.folder / "parked" / "jobs").rglob("*.png")
        waiting.write_bytes(waiting.read_bytes()[:-1] + b"\0")
        world.store.start()
        async with world.service(**traced) as service:
            done = await ended(service, job_id)
            assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
            assert service.services.metrics.parked_ends.labels("damaged")._value.get() == 1
            assert world.kept() == [artifact.key for artifact in done.artifacts]
    world.check(job_id)
    first, second = sorted(collected.named("job attempt"), key=lambda span: span.start)
    assert (first.attributes["error.type"], second.failed) == ("parked result damaged", False)
    assert first.parent_id == second.parent_id
    delivered, requeued = collected.named("job deliver"), collected.named("job requeue")
    assert delivered
    assert requeued
    below = {(span.trace_id, span.parent_id) for span in (*delivered, *requeued)}
    assert below == {(first.trace_id, first.span_id)}


async def test_a_result_that_comes_back_from_the_dead_changes_nothing(world: World) -> None:
    world.store.kill()
    async with world.service() as service:
        job_id = await park(service, world)
    shutil.move(world.folder / "parked", world.folder / "elsewhere")
    await world.lose_history()
    world.store.start()
    async with world.service() as service:  # both are lost: it is made again
        done = await ended(service, job_id)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 2)
    shutil.rmtree(world.folder / "parked", ignore_errors=True)
    shutil.move(world.folder / "elsewhere", world.folder / "parked")
    async with world.service() as service:
        await until(lambda: world.parked() == [])
        assert service.services.metrics.parked_ends.labels("replaced")._value.get() == 1
        assert world.kept() == [artifact.key for artifact in done.artifacts]
        assert (await job(service, job_id)).attempt == 2
    world.check(job_id)


async def test_a_process_that_died_just_after_the_end_takes_nothing_back(world: World) -> None:
    world.store.kill()
    async with world.service() as service:
        job_id = await park(service, world)
    shutil.copytree(world.folder / "parked", world.folder / "elsewhere")
    world.store.start()
    async with world.service() as service:
        done = await ended(service, job_id)
        await until(lambda: world.parked() == [])
    shutil.rmtree(world.folder / "parked", ignore_errors=True)
    shutil.move(world.folder / "elsewhere", world.folder / "parked")
    async with world.service():
        await until(lambda: world.parked() == [])
    assert world.kept() == [artifact.key for artifact in done.artifacts]
    world.check(job_id)


async def test_a_result_waits_though_its_backend_left_the_settings(world: World) -> None:
    world.store.kill()
    async with world.service() as service:
        job_id = await park(service, world)
    world.store.start()
    async with Simulator(FAST) as another:
        first, world.sim = world.sim, another
        async with world.service() as service:
            done = await ended(service, job_id)
        assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
        assert (first.record.executions, another.record.executions) == (1, 0)
    world.check(job_id)


async def test_nobody_else_takes_up_an_attempt_whose_result_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    open_attempts = work.open_attempts

    async def counted(tx: Reader, backend_id: str, worker_id: str) -> list[OpenAttempt]:
        nonlocal looks
        found = await open_attempts(tx, backend_id, worker_id)
        looks += bool(found)
        return found

    monkeypatch.setattr(driver, "STRAYS_SECONDS", 0.02)
    monkeypatch.setattr(work, "open_attempts", counted)
    async with world.service() as service:
        world.store.kill()
        job_id = await park(service, world)
        await world.lose_history()
        before = looks
        await until(lambda: looks > before + 5)
        assert service.worker.fleet.drivers[0].job_ids() == set()
        world.store.start()
        assert (await ended(service, job_id)).attempt == 1
        assert world.sim.record.executions == 1
    world.check(job_id)


async def test_a_result_that_the_store_never_takes_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = S3Storage.put
    refused = ""

    async def choosy(self: S3Storage, key: str, *args: Any, **given: Any) -> Any:
        if refused in key:
            raise StorageUnavailable("Not this one.")
        return await put(self, key, *args, **given)

    monkeypatch.setattr(S3Storage, "put", choosy)
    async with world.service() as service:
        refused = await park(service, world, seed=1)
        other = (await submit(service, order(seed=2))).job_id
        assert (await ended(service, other)).state is State.SUCCEEDED
        assert (await job(service, refused)).state is State.STORING
        monkeypatch.undo()
        assert (await ended(service, refused)).state is State.SUCCEEDED
    world.check(refused, other)


async def test_files_without_a_parcel_are_removed_at_the_start(world: World) -> None:
    left = world.folder / "parked" / "jobs" / "job_1" / "1"
    left.mkdir(parents=True)
    (left / "image_0.png").write_bytes(b"half a result")
    (world.folder / "parked" / "jobs" / "job_2" / "1").mkdir(parents=True)
    (world.folder / "parked" / "jobs" / "job_2" / "1" / "parcel.json").write_bytes(b"{")
    async with world.service():
        assert world.parked() == []
