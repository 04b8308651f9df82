"""The checker is worth something: the service, broken once for each invariant, is found out."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.chaos import proof
from tests.chaos.load import Callers, Told
from tests.chaos.matrix import Cell
from tests.chaos.scene import Scene
from tests.support.api import connected
from tests.support.checker import Fault, Kind, faults
from tests.support.stack import FAST, SLOW, ended, online, order, reached, running, submit

from comfy_api_service.api import errors
from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import endings, insertion, keys, transitions, work
from comfy_api_service.db.base import Params, Part, Row
from comfy_api_service.db.insertion import Written
from comfy_api_service.db.sqlite import SqliteTx
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.events import Event
from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator
from comfy_api_service.storage.tree import Tree
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.reporter import Reporter

Patch = pytest.MonkeyPatch


async def one_job(folder: Path) -> str:
    """A job that runs to its end, and the service with it."""
    async with Simulator(FAST) as sim, running(folder, sim.url) as service:
        await online(service)
        job_id = (await submit(service)).job_id
        await ended(service, job_id)
    return job_id


def kinds(found: Sequence[Fault]) -> set[Kind]:
    return {fault.kind for fault in found}


def rewritten(patch: Patch, change: Callable[[str], str]) -> None:
    """Every statement of every transaction is changed before it is executed."""
    run, many, one, together = SqliteTx.run, SqliteTx.many, SqliteTx.one, SqliteTx.together

    async def other_run(self: SqliteTx, sql: str, params: Params | None = None) -> int:
        return await run(self, change(sql), params)

    async def other_many(self: SqliteTx, sql: str, rows: Iterable[Params]) -> None:
        await many(self, change(sql), rows)

    async def other_one(self: SqliteTx, sql: str, params: Params | None = None) -> Row | None:
        return await one(self, change(sql), params)

    async def other_together(self: SqliteTx, *parts: Part) -> None:
        await together(self, *((change(sql), params) for sql, params in parts))

    patch.setattr(SqliteTx, "run", other_run)
    patch.setattr(SqliteTx, "many", other_many)
    patch.setattr(SqliteTx, "one", other_one)
    patch.setattr(SqliteTx, "together", other_together)


async def test_the_whole_service_is_found_clean(tmp_path: Path) -> None:
    assert faults(tmp_path, [await one_job(tmp_path)]) == []


async def test_an_answer_without_a_row_is_lost(tmp_path: Path, monkeypatch: Patch) -> None:
    async def forgetful(_tx: Any, jobs: Sequence[Any], _held: Any) -> list[Written]:
        return [Written(1, 1.0, 0, 0.0, 0.0) for _ in jobs]

    monkeypatch.setattr(insertion, "_insert_fresh", forgetful)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        job_id = (await submit(service)).job_id
    found = faults(tmp_path, [job_id])
    assert [(fault.kind, "no row" in fault.text) for fault in found] == [(Kind.LOST, True)]


async def test_an_event_told_twice_is_doubled(tmp_path: Path, monkeypatch: Patch) -> None:
    once = endings.noted

    def twice(account_id: str, *events: Event) -> tuple[Part, Part]:
        return once(account_id, *events, *(replace(event, seq=event.seq + 10) for event in events))

    monkeypatch.setattr(transitions, "noted", twice)
    assert Kind.DOUBLED in kinds(faults(tmp_path, [await one_job(tmp_path)]))


async def test_a_gap_in_the_numbers_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    rewritten(monkeypatch, lambda sql: sql.replace("seq = :seq", "seq = :seq + 1"))
    found = faults(tmp_path, [await one_job(tmp_path)])
    assert any("its counter says" in fault.text for fault in found)


async def test_a_transition_without_its_outbox_entry_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    rewritten(monkeypatch, lambda sql: "DELETE FROM outbox WHERE FALSE" if "INTO outbox" in sql else sql)
    found = faults(tmp_path, [await one_job(tmp_path)])
    assert [fault.text for fault in found if "other outbox entries" in fault.text]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("SET charged = :charged", "SET charged = 2 * :charged"),
        ("charged = charged + :charged", "charged = charged + 2 * :charged"),
        ("reserved = reserved - :reserved", "reserved = reserved"),
    ],
)
async def test_a_double_charge_is_found(tmp_path: Path, monkeypatch: Patch, right: str, wrong: str) -> None:
    rewritten(monkeypatch, lambda sql: sql.replace(right, wrong))
    assert Kind.DOUBLED in kinds(faults(tmp_path, [await one_job(tmp_path)]))


async def test_a_charge_for_what_never_ran_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    rewritten(
        monkeypatch,
        lambda sql: sql.replace("SET charged = :charged", "SET charged = 1").replace(
            "charged + :charged", "charged + 1"
        ),
    )
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        job_id = (await submit(service, order(model=None))).job_id
        await service.services.jobs.cancel(LOCAL, job_id)
    found = faults(tmp_path, [job_id])
    assert [fault.text for fault in found if "canceled before it ran" in fault.text]


async def replaced(service: Service, replacing: Callable[[], None] = lambda: None) -> str:
    """A job whose first attempt goes on although somebody has replaced it."""
    await online(service)
    job_id = (await submit(service, order(steps=3))).job_id
    await reached(service, job_id, State.EXECUTING)
    replacing()
    await service.db.write(
        lambda tx: transitions.requeue(tx, Fence(job_id, 1, service.worker.id), reason="test", now=1.0)
    )
    await reached(service, job_id, State.DISPATCHED)  # the second attempt waits behind the first
    await ended(service, job_id)
    return job_id


@pytest.mark.parametrize("fenced", [True, False])
async def test_a_write_without_its_fence_is_found(tmp_path: Path, monkeypatch: Patch, fenced: bool) -> None:
    if not fenced:
        monkeypatch.setattr(
            transitions,
            "_MINE",
            transitions._MINE.replace("j.attempt = :attempt", "j.attempt >= :attempt").replace(
                "a.number = j.attempt", "a.number = :attempt"
            ),
        )
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        # without the fence the second attempt is held back, so that the late write of the first finds the job open
        job_id = await (replaced(service) if fenced else replaced(service, sim.faults.accept_and_run_nothing))
    found = faults(tmp_path, [job_id])
    assert (
        [fault.text for fault in found if "is no key of attempt 2" in fault.text] if not fenced else not found
    )


@pytest.mark.parametrize("damage", ["absent", "short", "other"])
async def test_success_without_its_bytes_is_lost(tmp_path: Path, monkeypatch: Patch, damage: str) -> None:
    publish = Tree.publish

    def damaging(self: Tree, written: Path, key: str) -> None:
        if damage == "absent":
            written.unlink()
            return
        data = written.read_bytes()
        written.write_bytes(data[:-1] if damage == "short" else data[:-1] + bytes([data[-1] ^ 1]))
        publish(self, written, key)

    monkeypatch.setattr(Tree, "publish", damaging)
    found = faults(tmp_path, [await one_job(tmp_path)])
    assert [(fault.kind, "stored bytes differ" in fault.text) for fault in found] == [(Kind.LOST, True)]


async def test_a_file_beside_the_results_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    publish = Tree.publish

    def generous(self: Tree, written: Path, key: str) -> None:
        publish(self, written, key)
        (self.path(key).parent / "image_9.png").write_bytes(b"more")

    monkeypatch.setattr(Tree, "publish", generous)
    found = faults(tmp_path, [await one_job(tmp_path)])
    assert [fault.text for fault in found if "is stored beside its results" in fault.text]


async def test_a_job_that_nobody_follows_is_stuck(tmp_path: Path, monkeypatch: Patch) -> None:
    async def careless(*_args: Any, **_kwargs: Any) -> bool:
        return True

    monkeypatch.setattr(Reporter, "finish", careless)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        job_id = (await submit(service)).job_id
        await reached(service, job_id, State.EXECUTING)
    assert kinds(faults(tmp_path, [job_id])) == {Kind.STUCK}


@pytest.mark.parametrize("adopts", [True, False])
async def test_work_that_is_repeated_instead_of_adopted_is_found(
    tmp_path: Path, monkeypatch: Patch, adopts: bool
) -> None:
    async with Simulator(SLOW) as sim:
        async with running(tmp_path, sim.url) as service:
            await online(service)
            job_id = (await submit(service, order(steps=2))).job_id
            await reached(service, job_id, State.EXECUTING)
        if not adopts:

            async def anew(self: Driver) -> None:
                fence = Fence(job_id, 1, self._worker_id)
                await self._db.write(lambda tx: work.adopt(tx, self.backend_id, self._worker_id))
                await self._db.write(lambda tx: transitions.requeue(tx, fence, reason="lost", now=1.0))

            monkeypatch.setattr(Driver, "_adopt", anew)
        async with running(tmp_path, sim.url) as service:
            await ended(service, job_id)
        record = sim.record.as_json()
    with opened(tmp_path) as db:
        found = list(proof._runs(db, [record], Cell(_nothing)))
    assert [fault.kind for fault in found] == ([] if adopts else [Kind.DOUBLED])


async def test_a_wish_that_becomes_two_jobs_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    async def blind(*_args: Any) -> keys.Keys:
        return keys.Keys()

    monkeypatch.setattr(keys, "look_up", blind)
    told = Told(sent={"wish"})
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        for _ in range(2):
            job_id = (await submit(service, order(seed=1, key="wish"))).job_id
            told.jobs.setdefault("wish", job_id)
            await ended(service, job_id)
    with opened(tmp_path) as db:
        found = list(proof._keys(db, told))
    assert kinds(found) == {Kind.LOST, Kind.DOUBLED}


async def test_two_ends_of_a_job_are_found(tmp_path: Path) -> None:
    job_id = await one_job(tmp_path)
    with opened(tmp_path) as db:
        assert not list(proof._ends(db, Told(ends={job_id: "succeeded"}), Cell(_nothing)))
        found = list(proof._ends(db, Told(ends={job_id: "canceled"}), Cell(_nothing)))
        assert kinds(found) == {Kind.DOUBLED}
        db.execute("""UPDATE jobs SET state = 'failed', error = '{"code": "STORAGE_FAILED"}'""")
        assert Kind.LOST in kinds(list(proof._ends(db, Told(), Cell(_nothing))))
        db.execute("UPDATE jobs SET state = 'canceled'")
        assert kinds(list(proof._ends(db, Told(), Cell(_nothing)))) == {Kind.WRONG}


async def test_an_error_without_retry_after_is_found(tmp_path: Path, monkeypatch: Patch) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        await service.db.close()
        async with connected(service.app) as client:
            judged(right := await client.post("/api/v1/jobs", json={"prompt": "a lighthouse"}), [])
            assert right.status_code == 503
            monkeypatch.setattr(errors, "_add_headers", lambda *_: None)
            bare = await client.post("/api/v1/jobs", json={"prompt": "a lighthouse"})
            judged(bare, ["SERVICE_UNAVAILABLE without Retry-After"])


def test_an_error_without_a_name_is_found() -> None:
    judged(httpx2.Response(500, text="Internal Server Error"), ["an error without a name: 500"])
    judged(httpx2.Response(500, json={"error": {"code": "INTERNAL_ERROR"}}), ["500 INTERNAL_ERROR"])
    judged(httpx2.Response(409, json={"error": {"code": "CONFLICT"}}), [])


def judged(answer: httpx2.Response, wrong: list[str]) -> None:
    callers = Callers(["http://service.test"], 0)
    callers._judge(answer)
    assert callers.told.wrong == wrong


def _nothing(_scene: Scene) -> None:
    pass


def opened(folder: Path) -> "closing[sqlite3.Connection]":
    db = sqlite3.connect(folder / "comfy-api.sqlite3")
    db.row_factory = sqlite3.Row
    return closing(db)
