"""Jobs with input files: sent once to each backend, kept while a job is open, sent again if they were lost."""

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image, ImageChops
from tests.support.checker import check
from tests.support.graphs import loaded_picture, submit_graph
from tests.support.pictures import picture, png
from tests.support.stack import FAST, SLOW, ended, job, online, order, reached, running, submit, until
from tests.support.world import World

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.comfyui.errors import NodeFault, PromptRefused
from comfy_api_service.domain import breaker
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.breaker import BreakerState
from comfy_api_service.domain.errors import Code, Conflict, NotFound
from comfy_api_service.domain.job import State
from comfy_api_service.domain.upload import JobInput, Upload
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker import inputs, upkeep
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.driver import Driver


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def uploaded(service: Service, seed: int = 1) -> Upload:
    return await service.services.uploads.add(LOCAL, once(png(seed)))


async def submitted(service: Service, *uploads: Upload) -> str:
    """A job that saves the first of them."""
    graph = loaded_picture()
    inputs = [JobInput("1", "image", uploads[0].id)]
    for number, upload in enumerate(uploads[1:], 3):
        graph[str(number)] = {"class_type": "LoadImage", "inputs": {"image": upload.id}}
        graph[f"{number}0"] = {
            "class_type": "SaveImage", "inputs": {"images": [str(number), 0], "filename_prefix": "x"}
        }  # fmt: skip
        inputs.append(JobInput(str(number), "image", upload.id))
    return await submit_graph(service, graph, inputs=tuple(inputs))


def sent(sim: Simulator) -> int:
    return sim.record.request_counts["POST /upload/image"]


async def same_picture(service: Service, job_id: str, seed: int = 1) -> None:
    delivery = await service.services.results.picture(LOCAL, job_id, index=0)
    data = b"".join([chunk async for chunk in delivery.chunks(0, None)])
    with Image.open(io.BytesIO(data)) as made:
        assert ImageChops.difference(made.convert("RGB"), picture(seed=seed)).getbbox() is None


async def test_an_upload_of_a_hundred_jobs_is_sent_once_to_each_backend(tmp_path: Path) -> None:
    async with (
        Simulator(FAST) as one,
        Simulator(FAST) as two,
        running(tmp_path, one.url, two.url) as service,
    ):
        await online(service, 2)
        upload = await uploaded(service)
        jobs = [await submitted(service, upload) for _ in range(100)]
        for job_id in jobs:
            done = await ended(service, job_id)
            assert (done.state, done.error) == (State.SUCCEEDED, None)
        await same_picture(service, jobs[0])
        await same_picture(service, jobs[-1])
        assert [sent(one), sent(two)] == [1, 1]
        names = [path.name for sim in (one, two) for path in (sim.files.root / "temp" / "cui").iterdir()]
        assert len({len(name) for name in names}) == 1
        assert names[0] != names[1]
        assert not {upload.id, upload.sha256} & {Path(name).stem for name in names}
        assert len(one.files.inputs()) == 1
    check(tmp_path)


async def test_each_input_gets_its_own_file(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        first, second = await uploaded(service), await uploaded(service, 2)
        done = await ended(service, await submitted(service, first, second, first))
        assert done.state is State.SUCCEEDED
        assert sent(sim) == 2
        assert len({artifact.sha256 for artifact in done.artifacts}) == 2


async def test_files_that_a_restarted_backend_lost_are_sent_again(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        assert (await ended(service, await submitted(service, upload))).state is State.SUCCEEDED
        await asyncio.to_thread(sim.files.clear_temp)
        done = await ended(service, await submitted(service, upload))
        assert (done.state, done.error, done.executed) == (State.SUCCEEDED, None, 1)
        assert sent(sim) == 2
        await sim.faults.die()
        await sim.faults.restart()
        done = await ended(service, await submitted(service, upload))
        assert (done.state, done.error) == (State.SUCCEEDED, None)
    check(tmp_path)


async def test_a_backend_that_refuses_the_file_again_fails_the_job(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        sim.faults.rewrite_input("LoadImage", "image", "cui/absent.png [temp]")
        done = await ended(service, await submitted(service, upload))
        assert done.state is State.FAILED
        assert done.error is not None
        assert done.error.code is Code.INVALID_GRAPH
        assert sent(sim) == 2


async def test_a_file_that_vanished_from_the_store_fails_the_job_by_name(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        (tmp_path / "artifacts" / upload.key).unlink()
        done = await ended(service, await submitted(service, upload))
        assert done.error is not None
        assert done.error.code is Code.INVALID_INPUT
        assert sent(sim) == 0


async def test_a_backend_that_takes_no_files_ends_the_job_and_gets_less_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.1)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        (sim.files.root / "temp" / "cui").write_bytes(b"")  # where a folder should be made
        driver = the_driver(service)
        job_id = await submitted(service, upload)
        done = await ended(service, job_id)
        assert done.error is not None
        assert (done.state, done.error.code) == (State.FAILED, Code.ATTEMPTS_EXHAUSTED)
        assert done.executed == 0
        assert sent(sim) == done.attempt
        assert sim.record.request_counts["POST /prompt"] == 0
        assert driver.contact.breaker.state is BreakerState.OPEN
        assert driver.contact.breaker.pause > 0.1  # the probes were told, too
    check(tmp_path)


def the_driver(service: Service) -> Driver:
    (driver,) = service.worker.fleet.drivers
    return driver


class Names(dict[str, Any]):
    """Counts how often all of it is gone through."""

    passes = 0

    def items(self) -> Any:
        self.passes += 1
        return super().items()


async def test_what_a_backend_lost_is_forgotten_in_one_pass(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        files = the_driver(service)._inputs
        known = Names({str(number): asyncio.create_task(asyncio.sleep(0, "name")) for number in range(1000)})
        await asyncio.wait(known.values())
        known["on its way"] = asyncio.create_task(asyncio.Event().wait())
        files._names = known
        place = JobInput("1", "image", "upl_x")
        refused = PromptRefused("x", "x", (NodeFault("1", "LoadImage", "image", "x", "x"),))
        assert files.on_refused(cast(Assignment, SimpleNamespace(job_id="x", inputs=(place,))), refused)
        assert list(files._names) == ["on its way"]
        assert known.passes <= 1


async def test_a_content_that_vanished_on_its_way_is_sent_from_another_upload_of_it(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        files = the_driver(service)._inputs
        upload = await uploaded(service)
        gone = replace(upload, id="upl_00000000000000000000000000", key="uploads/acc_x/upl_x")
        both = await asyncio.gather(files._name(gone), files._name(upload), return_exceptions=True)
        assert isinstance(both[0], inputs._Gone)
        assert isinstance(both[1], str)
        assert await files._name(gone) == both[1]
        assert sent(sim) == 1


async def test_a_round_deletes_more_than_one_chunk_of_expired_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHUNK", 2)
    monkeypatch.setattr(upkeep, "UPLOAD_CHUNKS", 3)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        for seed in range(9):
            await uploaded(service, seed)
        await service.db.write(lambda tx: tx.run("UPDATE uploads SET expires_at = 1"))
        assert [await service.worker._upkeep.delete_expired_uploads() for _ in range(3)] == [6, 3, 0]


async def test_a_job_waits_while_the_store_is_away_and_nothing_wrong_is_posted(world: World) -> None:
    async with world.service() as service:
        upload = await uploaded(service)
        world.store.kill()
        job_id = await submitted(service, upload)
        waited = await tried(service, job_id)
        assert waited
        assert (await job(service, job_id)).executed == 0
        assert world.sim.record.request_counts["POST /prompt"] == 0
        world.store.start()
        done = await ended(service, job_id)
        assert done.state is State.SUCCEEDED
        await same_picture(service, job_id)
    world.check(job_id)


async def tried(service: Service, job_id: str) -> bool:
    """Wait until an attempt was given up."""

    async def closed() -> bool:
        row = await service.db.read(
            lambda tx: tx.one(
                "SELECT count(*) AS n FROM attempts WHERE job_id = :id AND closed_at IS NOT NULL",
                {"id": job_id},
            )
        )
        return row is not None and row["n"] > 0

    await until(closed)
    return True


async def test_an_upload_stays_while_an_open_job_needs_it(tmp_path: Path) -> None:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload, unused = await uploaded(service), await uploaded(service, 2)
        for _ in range(2):  # the backend's two places
            await submit(service, order(steps=100))
        job_id = await submitted(service, upload)
        await service.db.write(lambda tx: tx.run("UPDATE uploads SET expires_at = 1"))
        upkeep = service.worker._upkeep
        assert await upkeep.delete_expired_uploads() == 1
        with pytest.raises(Conflict):
            await service.services.uploads.delete(LOCAL, upload.id)
        artifacts = tmp_path / "artifacts"
        assert [(artifacts / one.key).exists() for one in (upload, unused)] == [True, False]
        await service.services.jobs.cancel(LOCAL, job_id)
        await reached(service, job_id, State.CANCELED)
        assert await upkeep.delete_expired_uploads() == 1
        assert not (artifacts / upload.key).exists()


async def test_a_job_whose_upload_was_deleted_meanwhile_is_not_taken(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        await service.services.uploads.delete(LOCAL, upload.id)
        job_id = await submitted(service, upload)
        with pytest.raises(NotFound):
            await job(service, job_id)


async def test_old_files_of_uploads_without_a_row_are_swept(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        upload = await uploaded(service)
        key = "uploads/acc_local/upl_00000000000000000000000000"
        await service.services.uploads._storage.put(key, once(b"x"), media_type="image/png")
        assert await service.worker._upkeep.sweep_orphans() == 0
        service.worker._upkeep._clock = Later()
        assert await service.worker._upkeep.sweep_orphans() == 1
        assert (tmp_path / "artifacts" / upload.key).exists()


class Later:
    """Two days from now."""

    def now(self) -> float:
        import time  # noqa: PLC0415

        return time.time() + 2 * 86_400

    def monotonic(self) -> float:
        return 0.0
