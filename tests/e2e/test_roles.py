"""API and workers as processes of their own, over one PostgreSQL and one Valkey."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.test_survival import record, until_status
from tests.support.checker import check
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, api, client, serve, simulator, until_online, worker
from tests.support.schema import bound, copied
from tests.support.valkey import valkey

LIMIT = 60.0
SLOW = ("--seconds-per-step", "0.13", "--seconds-per-load", "0")
FAST = ("--seconds-per-step", "0.005", "--seconds-per-load", "0")


@pytest.fixture
def shared(tmp_path: Path, postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """What all processes are told; the checker finds the database by the folder."""
    with copied(postgres) as url, bound(tmp_path, url), valkey() as redis:
        yield {"DATABASE_URL": url, "REDIS_URL": redis.url}


def submit(http: httpx2.Client, *, steps: int) -> str:
    body = {"prompt": "a lighthouse", "steps": steps, "width": 64, "height": 64}
    answer = http.post("/api/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return found


def leases(process: Process) -> set[str]:
    """Names of the backends that a worker says it has taken and not given back."""
    held: set[str] = set()
    for line in tuple(process.output):
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "backend_taken":
            held.add(told["backend"])
        elif told.get("event") in ("backend_handed_over", "backend_lost"):
            held.discard(told["backend"])
    return held


def test_a_killed_workers_prompts_are_adopted_where_they_are(tmp_path: Path, shared: dict[str, str]) -> None:
    with (
        simulator(tmp_path, *SLOW) as sim,
        api(tmp_path, **shared) as door,
        client(door) as http,
        worker(tmp_path, "--comfyui-url", sim.url, **shared) as first,
        worker(tmp_path, "--comfyui-url", sim.url, **shared) as second,
    ):
        until_online(http)
        driving, idle = (first, second) if leases(first) else (second, first)
        assert leases(idle) == set()
        jobs = [submit(http, steps=steps) for steps in (150, 5, 5)]
        until_status(http, jobs[0], "running")
        until(lambda: record(sim.url)["max_queue"] == 2)
        driving.kill()
        killed_at = time.monotonic()
        until(lambda: leases(idle))
        taken_after = time.monotonic() - killed_at
        assert taken_after < 15
        assert [until_status(http, job, "succeeded", "failed")["attempts"] for job in jobs] == [1, 1, 1]
        assert record(sim.url)["executions"] == 3
        assert idle.terminate() == 0
    check(tmp_path, jobs, artifacts=tmp_path / "data" / "artifacts")


def test_a_stopped_worker_that_goes_on_changes_nothing(tmp_path: Path, shared: dict[str, str]) -> None:
    with (
        simulator(tmp_path, *SLOW) as sim,
        api(tmp_path, **shared) as door,
        client(door) as http,
        worker(tmp_path, "--comfyui-url", sim.url, **shared) as first,
        worker(tmp_path, "--comfyui-url", sim.url, **shared) as second,
    ):
        until_online(http)
        driving, other = (first, second) if leases(first) else (second, first)
        jobs = [submit(http, steps=steps) for steps in (150, 5, 5)]
        until_status(http, jobs[0], "running")
        until(lambda: record(sim.url)["max_queue"] == 2)
        os.kill(driving.popen.pid, signal.SIGSTOP)
        until(lambda: leases(other))
        os.kill(driving.popen.pid, signal.SIGCONT)
        until(lambda: any("worker_replaced" in line for line in driving.output))
        assert [until_status(http, job, "succeeded", "failed")["attempts"] for job in jobs] == [1, 1, 1]
        assert record(sim.url)["executions"] == 3
        assert (first.terminate(), second.terminate()) == (0, 0)
    check(tmp_path, jobs, artifacts=tmp_path / "data" / "artifacts")


def test_backends_are_shared_evenly_and_handed_over_without_losing_a_job(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    with contextlib.ExitStack() as stack:
        sims = [stack.enter_context(simulator(tmp_path, *FAST)) for _ in range(4)]
        urls = [part for sim in sims for part in ("--comfyui-url", sim.url)]
        door = stack.enter_context(api(tmp_path, **shared))
        http = stack.enter_context(client(door))
        first = stack.enter_context(worker(tmp_path, *urls, **shared))
        until(lambda: len(leases(first)) == 4)
        until_online(http)
        jobs = [submit(http, steps=30) for _ in range(20)]
        second = stack.enter_context(worker(tmp_path, **shared))  # names none: it may drive any
        until(lambda: (len(leases(first)), len(leases(second))) == (2, 2))
        jobs += [submit(http, steps=30) for _ in range(20)]
        assert first.terminate() == 0
        until(lambda: len(leases(second)) == 4)
        for job in jobs:
            assert until_status(http, job, "succeeded", "failed")["status"] == "succeeded"
        assert sum(record(sim.url)["executions"] for sim in sims) == len(jobs)
    check(tmp_path, jobs, artifacts=tmp_path / "data" / "artifacts")


def test_several_api_processes_answer_on_one_port(tmp_path: Path, shared: dict[str, str]) -> None:
    port = 31000 + os.getpid() % 1500
    with (
        simulator(tmp_path, *FAST) as sim,
        worker(tmp_path, "--comfyui-url", sim.url, **shared),
        api(tmp_path, "--workers", "2", METRICS_PORT=str(port), **shared) as door,
        client(door) as http,
    ):
        until(lambda: _answers(http))
        until_online(http)
        until(lambda: all(_figures(port + number) for number in range(2)))
        asked = sum(_figures(port + number)[PINGS] for number in range(2))
        for _ in range(10):
            assert http.get("/ping").status_code == 200
        assert sum(_figures(port + number)[PINGS] for number in range(2)) == asked + 10
        made = http.post("/api/v1/generate", json={"prompt": "a lighthouse", "width": 64, "height": 64})
        assert made.status_code == 201, made.text
        picture = httpx2.get(made.json()["image_url"], trust_env=False)
        assert picture.content.startswith(b"\x89PNG")
        children = _children(door.popen.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        until(lambda: len(_children(door.popen.pid)) == 2 and children[0] not in _children(door.popen.pid))
        until(lambda: _answers(http))
        until(lambda: all(_figures(port + number) for number in range(2)))
        assert door.terminate() == 0
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_processes_of_an_api_whose_parent_was_killed_end(tmp_path: Path, shared: dict[str, str]) -> None:
    with api(tmp_path, "--workers", "2", **shared) as door, client(door) as http:
        until(lambda: _answers(http))
        until(lambda: len(_children(door.popen.pid)) == 2)
        children = _children(door.popen.pid)
        door.popen.kill()
        until(lambda: not [pid for pid in children if _lives(pid)])


def test_roles_that_run_apart_need_a_database_that_they_share(tmp_path: Path) -> None:
    for role in ("api", "worker"):
        process = Process(["comfy_api_service", role], folder=tmp_path)
        assert process.popen.wait(LIMIT) == 2
        process.close()
        assert any("DATABASE_URL=postgresql://" in line for line in process.output)


def test_a_workers_figures(tmp_path: Path, shared: dict[str, str]) -> None:
    with simulator(tmp_path, *FAST) as sim:
        port = 20000 + os.getpid() % 10000
        environment = {**shared, "METRICS_PORT": str(port), "METRICS_TOKEN": "x" * 32}
        with worker(tmp_path, "--comfyui-url", sim.url, **environment):
            url = f"http://127.0.0.1:{port}"
            assert httpx2.get(f"{url}/health/live", trust_env=False).json() == {"alive": True}
            assert httpx2.get(f"{url}/metrics", trust_env=False).status_code == 401
            headers = {"Authorization": f"Bearer {'x' * 32}"}
            figures = httpx2.get(f"{url}/metrics", headers=headers, trust_env=False).text
            assert "comfyui_worker_leases 1.0" in figures


def test_processes_without_a_port_for_their_figures_do_not_start(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    process = Process(
        ["comfy_api_service", "api", "--port", "0", "--workers", "2"],
        folder=tmp_path,
        environment={**shared, "METRICS_PORT": "65535"},
    )
    assert process.popen.wait(LIMIT) == 2
    process.close()
    assert any("lower METRICS_PORT" in line for line in process.output)


PINGS = 'comfyui_http_requests_total{code="200",endpoint="/ping",method="GET"}'


def _figures(port: int) -> dict[str, float]:
    """What a process tells on its own port; nothing while it starts."""
    try:
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    except httpx2.TransportError:
        return {}
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def _answers(http: httpx2.Client) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return http.get("/ping").status_code == 200
    return False


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.timeout(300)  # the shell is started some twenty times
@pytest.mark.parametrize("kind", ["roles apart", "one process"])
def test_backends_are_added_drained_and_removed_while_running(
    tmp_path: Path, postgres: PostgresServer, kind: str
) -> None:
    with contextlib.ExitStack() as stack:
        environment: dict[str, str] = {}
        if kind == "roles apart":
            url = stack.enter_context(copied(postgres))
            stack.enter_context(bound(tmp_path, url))
            environment = {"DATABASE_URL": url}
        first, second = (stack.enter_context(simulator(tmp_path, *FAST)) for _ in range(2))
        if kind == "roles apart":
            door = stack.enter_context(api(tmp_path, **environment))
            driving = stack.enter_context(worker(tmp_path, "--comfyui-url", first.url, **environment))
        else:
            door = driving = stack.enter_context(serve(tmp_path, first.url))
        http = stack.enter_context(client(door))
        until_online(http)

        def backends(*arguments: str, code: int = 0) -> str:
            process = Process(
                ["comfy_api_service", "backends", *arguments], folder=tmp_path, environment=environment
            )
            assert process.popen.wait(LIMIT) == code, process.output
            process.close()
            return "\n".join(process.output)

        def states() -> dict[str, str]:
            return {one["name"]: one["state"] for one in json.loads(backends("list", "--json"))["backends"]}

        def runs(count: int) -> list[str]:
            jobs = [submit(http, steps=10) for _ in range(count)]
            assert all(
                until_status(http, job, "succeeded", "failed")["status"] == "succeeded" for job in jobs
            )
            return jobs

        assert states() == {"comfyui-1": "online"}
        assert backends("add", second.url) == "comfyui-2 is on the list"
        until(lambda: states() == {"comfyui-1": "online", "comfyui-2": "online"})
        jobs = runs(8)
        assert record(second.url)["executions"] > 0
        backends("drain", "comfyui-2")
        until(lambda: states()["comfyui-2"] == "draining")
        before = record(second.url)["executions"]
        jobs += runs(6)
        assert record(second.url)["executions"] == before
        backends("resume", "comfyui-2")
        until(lambda: states()["comfyui-2"] == "online")
        jobs += runs(8)
        assert record(second.url)["executions"] > before
        backends("remove", "comfyui-2")
        assert states() == {"comfyui-1": "online"}
        until(lambda: leases(driving) == {"comfyui-1"})
        assert "There is no such ComfyUI server." in backends("drain", "comfyui-2", code=1)
        assert "COMFYUI_URL" in backends("add", "no address", code=2)
        jobs += runs(2)
        check(
            tmp_path / "data" if kind == "one process" else tmp_path,
            jobs,
            artifacts=tmp_path / "data" / "artifacts",
        )
