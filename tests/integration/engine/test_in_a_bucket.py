"""The regular duties and what callers ask for, with results in a bucket."""

import time
from collections.abc import AsyncIterator

import pytest
from tests.support.stack import ended, order, submit, until
from tests.support.world import World

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.storage import s3
from comfy_api_service.storage.base import StorageUnavailable
from comfy_api_service.worker.carrier import Carrier


class TwoDaysOn(SystemClock):
    def now(self) -> float:
        return time.time() + 2 * 86_400


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_artifacts_go_after_their_retention(world: World) -> None:
    async with world.service() as service:
        upkeep = service.worker._upkeep
        done = await ended(service, (await submit(service, order(batch_size=2))).job_id)
        assert await upkeep.delete_expired() == 0
        assert len(world.kept()) == 2
        await service.db.write(lambda tx: tx.run("UPDATE jobs SET expires_at = 1"))
        assert await upkeep.delete_expired() == 1
        assert world.kept() == []
        with pytest.raises(ServiceError) as gone:
            await service.services.results.picture(LOCAL, done.id, index=0)
        assert gone.value.code is Code.GONE
    world.check(done.id)


async def test_purge_deletes_the_objects(world: World) -> None:
    async with world.service() as service:
        done = await ended(service, (await submit(service)).job_id)
        await service.services.jobs.purge(LOCAL, done.id)
        assert world.kept() == []
    world.check(done.id)


async def test_old_orphans_are_swept_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.service() as service:
        upkeep = service.worker._upkeep
        done = await ended(service, (await submit(service)).job_id)
        monkeypatch.setattr(Carrier, "_deliver", forever_away)
        world.store.kill()
        waiting = (await submit(service)).job_id
        await until(lambda: "parcel.json" in world.parked())
        world.store.start()
        half = f"jobs/{waiting}/1/image_1.png"
        orphan = f"jobs/{done.id}/7/image_0.png"
        for key in (half, orphan, "elsewhere/image_0.png"):
            await upkeep._storage.put(key, one(b"left behind"), media_type="image/png")
        assert await upkeep.sweep_orphans() == 0
        monkeypatch.setattr(upkeep, "_clock", TwoDaysOn())
        assert await upkeep.sweep_orphans() == 1
        assert world.kept() == sorted([done.artifacts[0].key, half, "elsewhere/image_0.png"])


async def test_readers_are_told_that_the_store_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "OPEN_SECONDS", 0.2)
    async with world.service() as service:
        done = await ended(service, (await submit(service)).job_id)
        results = service.services.results
        for stop, go_on in ((world.store.kill, world.store.start), (world.store.pause, world.store.resume)):
            delivery = await results.picture(LOCAL, done.id, index=0)
            stop()
            with pytest.raises(ServiceError) as away:
                [chunk async for chunk in delivery.chunks(0, None)]
            assert away.value.code is Code.SERVICE_UNAVAILABLE
            with pytest.raises(ServiceError) as small:
                await results.picture(LOCAL, done.id, index=0, size=16)
            assert small.value.code is Code.SERVICE_UNAVAILABLE
            go_on()
            assert b"".join([chunk async for chunk in delivery.chunks(0, None)]).startswith(b"\x89PNG")
    world.check(done.id)


async def test_a_purge_that_the_store_did_not_hear_of_is_asked_again(world: World) -> None:
    async with world.service() as service:
        done = await ended(service, (await submit(service)).job_id)
        world.store.kill()
        with pytest.raises(ServiceError) as away:
            await service.services.jobs.purge(LOCAL, done.id)
        assert away.value.code is Code.SERVICE_UNAVAILABLE
        assert (await service.services.jobs.get(LOCAL, done.id)).links == ()
        world.store.start()
        await service.services.jobs.purge(LOCAL, done.id)
        assert world.kept() == []


async def test_health_names_a_store_that_hangs_in_time(world: World) -> None:
    async with world.service() as service:
        world.store.pause()
        assert (await service.services.health.report()).storage == "disconnected"
        world.store.resume()
        await until(lambda: _connected(service))


async def _connected(service: Service) -> bool:
    return (await service.services.health.report()).storage == "connected"


async def forever_away(*_: object) -> None:
    raise StorageUnavailable("The store is away.")
