"""Regular duties: retention, orphans, needs that nobody satisfies, counters."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.files import files_below
from tests.support.stack import FAST, LIMIT, ended, job, online, order, running, submit, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import sessions
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.domain.job import State
from comfy_api_service.domain.principal import Credential, Kind
from comfy_api_service.domain.tiers import DAY
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker.upkeep import Upkeep


def upkeep(service: Service) -> Upkeep:
    return service.worker._upkeep


async def test_artifacts_go_after_their_retention_and_rows_later(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service)).job_id)
        file = tmp_path / "artifacts" / done.artifacts[0].key
        assert file.exists()
        assert await upkeep(service).delete_expired() == 0
        await service.db.write(lambda tx: tx.run("UPDATE jobs SET expires_at = 1"))
        assert await upkeep(service).delete_expired() == 1
        assert not file.exists()
        view = await service.services.jobs.get(LOCAL, done.id)
        assert view.job.purged_at is not None
        assert view.links == ()
        assert await upkeep(service).forget_old() == 0
        await service.db.write(lambda tx: tx.run("UPDATE jobs SET finished_at = 1"))
        assert await upkeep(service).forget_old() == 1
        row = await service.db.read(lambda tx: tx.one("SELECT count(*) AS n FROM events"))
        assert row is not None
        assert row["n"] == 0


async def test_purge_deletes_the_files_and_keeps_the_job(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service)).job_id)
        view = await service.services.jobs.purge(LOCAL, done.id)
        assert view.job.purged_at is not None
        assert not (tmp_path / "artifacts" / done.artifacts[0].key).exists()
    check(tmp_path)


async def test_old_orphans_are_swept_and_nothing_else(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service)).job_id)
        kept = tmp_path / "artifacts" / done.artifacts[0].key
        orphan = kept.parents[1] / "7" / "image_0.png"
        young = kept.parents[1] / "8" / "image_0.png"
        for path in (orphan, young):
            path.parent.mkdir(parents=True)
            path.write_bytes(b"left behind")
        old = time.time() - 2 * 86_400
        for path in (kept, orphan):
            os.utime(path, (old, old))
        assert await upkeep(service).sweep_orphans() == 1
        assert kept.exists()
        assert young.exists()
        assert not orphan.exists()
    check(tmp_path)


class Between:
    """A database after whose first read something else happens."""

    def __init__(self, db: Database, then: Callable[[], Awaitable[object]]) -> None:
        self._db = db
        self._then: Callable[[], Awaitable[object]] | None = then

    async def read(self, function: Callable[[Reader], Awaitable[Any]]) -> Any:
        found = await self._db.read(function)
        then, self._then = self._then, None
        if then is not None:
            await then()
        return found


async def test_a_sweep_spares_the_files_of_a_job_that_ends_while_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        collector = service.worker.fleet.drivers[0]._settler._collector
        collect, stored, may_end = collector.collect, asyncio.Event(), asyncio.Event()

        async def slowly(*args: Any) -> Any:
            collected = await collect(*args)
            stored.set()
            await may_end.wait()
            return collected

        monkeypatch.setattr(collector, "collect", slowly)
        accepted = await submit(service)
        async with asyncio.timeout(LIMIT):
            await stored.wait()
        files = files_below(tmp_path / "artifacts" / "jobs")
        old = time.time() - 2 * 86_400
        for path in files:
            os.utime(path, (old, old))

        async def end() -> None:
            may_end.set()
            assert (await ended(service, accepted.job_id)).state is State.SUCCEEDED

        monkeypatch.setattr(upkeep(service), "_db", Between(service.db, end))
        assert await upkeep(service).sweep_orphans() == 0
        assert files
        assert may_end.is_set()
    check(tmp_path)


async def test_a_need_that_no_backend_satisfies_any_more_fails_its_jobs_in_the_end(tmp_path: Path) -> None:
    lost_model = "sd_xl_base_1.0.safetensors"
    async with Simulator(FAST) as one:
        async with running(tmp_path, one.url, unservable_timeout=0.5) as service:
            await online(service)
            await service.worker.drain(0)
            accepted = await submit(service, order(model=lost_model))
        async with Simulator(FAST) as two:
            await two.faults.die()
            async with running(tmp_path, two.url, unservable_timeout=0.5) as service:

                async def failed() -> bool:
                    await upkeep(service).fail_unservable()
                    return (await job(service, accepted.job_id)).state is State.FAILED

                await until(failed)
                error = (await job(service, accepted.job_id)).error
                assert error is not None
                assert error.code is Code.NO_CAPABLE_BACKEND
    check(tmp_path)


async def test_the_reconciler_counts_what_it_finds(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        await submit(service)
        assert await upkeep(service).reconcile() == 0
        await service.db.write(lambda tx: tx.run("UPDATE lanes SET queued = 5"))
        assert await upkeep(service).reconcile() > 0
        assert await upkeep(service).reconcile() == 0
    check(tmp_path, all_ended=False)


async def test_a_cancel_that_comes_while_the_result_is_stored_wins_and_leaves_no_file(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        collector = service.worker.fleet.drivers[0]._settler._collector
        collect = collector.collect

        async def slowly(*args: Any) -> Any:
            collected = await collect(*args)
            await service.services.jobs.cancel(LOCAL, accepted.job_id)
            return collected

        collector.collect = slowly  # type: ignore[assignment]
        accepted = await submit(service)
        assert (await ended(service, accepted.job_id)).state is State.CANCELED
        await until(lambda: not files_below(tmp_path / "artifacts" / "jobs"))
    check(tmp_path)


async def test_a_file_that_nobody_deleted_and_is_not_there_is_the_stores_fault(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, (await submit(service)).job_id)
        (tmp_path / "artifacts" / done.artifacts[0].key).unlink()
        delivery = await service.services.results.picture(LOCAL, done.id, index=0)
        with pytest.raises(ServiceError) as away:
            [chunk async for chunk in delivery.chunks(0, None)]
        assert away.value.code is Code.SERVICE_UNAVAILABLE
        await service.services.jobs.purge(LOCAL, done.id)
        with pytest.raises(ServiceError) as gone:
            await service.services.results.picture(LOCAL, done.id, index=0)
        assert gone.value.code is Code.GONE


async def test_sessions_and_tickets_that_have_expired_are_forgotten(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        credential = Credential(Kind.SESSION, "ses_old")
        now = service.services.clock.now()

        async def put(tx: Tx) -> None:
            for name, until in (("ses_old", now - 2 * DAY), ("ses_new", now + DAY)):
                await sessions.begin(tx, name, LOCAL.id, f"digest of {name}", now=0.0, expires_at=until)
            await sessions.add_ticket(tx, "old", credential, now - 1)
            await sessions.refresh(tx, "digest of ses_new", "the next", now=1.0, expires_at=now + DAY)
            await sessions.add_ticket(tx, "new", credential, now + DAY)

        await service.db.write(put)
        await upkeep(service).forget_old()
        for query, left in (
            ("SELECT id AS name FROM sessions", "ses_new"),
            ("SELECT digest AS name FROM refresh_tokens", "the next"),
            ("SELECT digest AS name FROM tickets", "new"),
        ):
            rows = await service.db.read(lambda tx, query=query: tx.all(query))  # type: ignore[misc]
            assert [row["name"] for row in rows] == [left]
