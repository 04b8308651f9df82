"""PostgreSQL killed and started again under a running service, with real signals: nothing acknowledged is lost, and
all goes on within 10 s.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import httpx2
import pytest
from tests.support.checker import check
from tests.support.postgres import PostgresServer, blocking, server
from tests.support.processes import Process, api, client, serve, simulator, until_online, worker
from tests.support.schema import bound

LIMIT = 60.0
RECOVERED_WITHIN = 10.0
"""Seconds after the server answers again."""
BODY = {"prompt": "a lighthouse", "steps": 2, "width": 64, "height": 64}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server of the test's own, with a database that its folder is bound to."""
    with server() as made:
        made.execute("CREATE DATABASE service")
        with bound(tmp_path, made.url("service")):
            yield made


class Load:
    """Senders that go on whatever they are answered."""

    def __init__(self, *urls: str) -> None:
        """`urls`: of processes that answer; each sender has one."""
        self._urls = urls
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[httpx2.Response] = []
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        url = self._urls[number % len(self._urls)]
        with httpx2.Client(base_url=url, timeout=30, trust_env=False) as api:
            seed = number * 1_000_000
            while not self._stop.is_set():
                seed += 1
                answer = api.post("/api/v1/jobs", json={**BODY, "seed": seed})
                if answer.status_code == 202:
                    self.acknowledged.append(answer.json()["job_id"])
                else:
                    self.refused.append(answer)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def until_more(seen: list[str], count: int, limit: float = LIMIT) -> None:
    wanted = len(seen) + count
    end = time.monotonic() + limit
    while len(seen) < wanted:
        assert time.monotonic() < end, f"{len(seen)} of {wanted}"
        time.sleep(0.02)


def until_done(database: str, since: float, limit: float) -> None:
    """Wait until a job was started and one has ended after `since`, by their own rows."""

    async def moments() -> tuple[float, float]:
        connection = await asyncpg.connect(database)
        try:
            row = await connection.fetchrow("SELECT max(started_at), max(finished_at) FROM jobs")
            assert row is not None
            return row[0] or 0.0, row[1] or 0.0
        finally:
            await connection.close()

    end = time.monotonic() + limit
    while min(blocking(moments)) <= since:
        assert time.monotonic() < end, "no job is started and ended"
        time.sleep(0.1)


@pytest.mark.parametrize("apart", [False, True], ids=["one process", "roles apart"])
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "restart"])
def test_no_acknowledged_job_is_lost(
    tmp_path: Path, own: PostgresServer, number: signal.Signals, *, apart: bool
) -> None:
    with (
        simulator(tmp_path, "--seconds-per-step", "0.01", "--seconds-per-load", "0") as sim,
        ExitStack() as stack,
    ):
        doors = started(stack, tmp_path, own, sim.url, apart=apart)
        http = stack.enter_context(client(doors[0]))
        until_online(http)
        load = Load(*(door.url for door in doors))
        stack.callback(load.stop)
        until_more(load.acknowledged, 20)
        own.stop(number)
        assert http.get("/health").json()["database_status"] == "disconnected"
        until_refused(load)
        own.start()
        back = time.time()
        end = time.monotonic() + RECOVERED_WITHIN
        until_more(load.acknowledged, 20, RECOVERED_WITHIN)
        load.stop()
        until_done(own.url("service"), back, end - time.monotonic())
        for answer in load.refused:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
            assert answer.headers["retry-after"]
        until_ended(http)
    check(tmp_path / "data", load.acknowledged)


def started(
    stack: ExitStack, folder: Path, database: PostgresServer, backend: str, *, apart: bool
) -> list[Process]:
    """The processes that answer: one that does all, or two beside two workers."""
    if not apart:
        return [stack.enter_context(serve(folder, backend))]
    environment = {"DATABASE_URL": database.url("service")}
    doors = [stack.enter_context(api(folder, **environment)) for _ in range(2)]
    for _ in range(2):
        stack.enter_context(worker(folder, "--comfyui-url", backend, **environment))
    return doors


def until_refused(load: Load) -> None:
    end = time.monotonic() + LIMIT
    while not load.refused:
        assert time.monotonic() < end
        time.sleep(0.02)


def until_ended(api: httpx2.Client) -> None:
    end = time.monotonic() + LIMIT
    while api.get("/api/v1/jobs", params={"status": ["queued", "running"]}).json()["jobs"]:
        assert time.monotonic() < end
        time.sleep(0.1)
