"""PostgreSQL killed and started again under a running service, with real signals: nothing acknowledged is lost."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.checker import check
from tests.support.postgres import PostgresServer, server
from tests.support.processes import client, serve, simulator
from tests.support.schema import bound

LIMIT = 60.0
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

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[httpx2.Response] = []
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        with httpx2.Client(base_url=self._url, timeout=30, trust_env=False) as api:
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


def until_more(seen: list[str], count: int) -> None:
    wanted = len(seen) + count
    end = time.monotonic() + LIMIT
    while len(seen) < wanted:
        assert time.monotonic() < end, f"{len(seen)} of {wanted}"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "restart"])
def test_no_acknowledged_job_is_lost(tmp_path: Path, own: PostgresServer, number: signal.Signals) -> None:
    with (
        simulator(tmp_path, "--seconds-per-step", "0.01", "--seconds-per-load", "0") as sim,
        serve(tmp_path, sim.url) as service,
        client(service) as api,
    ):
        load = Load(service.url)
        until_more(load.acknowledged, 20)
        own.stop(number)
        assert api.get("/health").json()["database_status"] == "disconnected"
        until_refused(load)
        own.start()
        until_more(load.acknowledged, 20)
        load.stop()
        for answer in load.refused:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
            assert answer.headers["retry-after"]
        until_ended(api)
    check(tmp_path / "data", load.acknowledged)


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
