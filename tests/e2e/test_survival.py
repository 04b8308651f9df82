"""Real processes, killed with real signals."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.checker import check
from tests.support.processes import client, serve, simulator, until_health, until_online
from tests.support.valkey import valkey

pytestmark = pytest.mark.usefixtures("dialect")

LIMIT = 40.0
BODY = {"prompt": "a lighthouse", "steps": 20, "width": 64, "height": 64}


def submit(api: httpx2.Client, seed: int) -> str:
    answer = api.post("/api/v1/jobs", json={**BODY, "seed": seed})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def until_status(api: httpx2.Client, job_id: str, *wanted: str) -> dict[str, Any]:
    end = time.monotonic() + LIMIT
    while True:
        job: dict[str, Any] = api.get(f"/api/v1/jobs/{job_id}").json()
        if job["status"] in wanted:
            return job
        assert time.monotonic() < end, f"still {job['status']}, not {wanted}"
        time.sleep(0.05)


def record(sim_url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{sim_url}/_simulator/record", trust_env=False).json()
    return found


def test_kill_9_with_one_queued_one_running_and_one_just_finished(tmp_path: Path) -> None:
    with simulator(tmp_path, "--seconds-per-step", "0.1", "--seconds-per-load", "0") as sim:
        with serve(tmp_path, sim.url) as service, client(service) as api:
            until_online(api)
            first, second, third = (submit(api, seed) for seed in range(3))
            until_status(api, first, "running")
            end = time.monotonic() + LIMIT
            while record(sim.url)["max_queue"] < 2:
                assert time.monotonic() < end
                time.sleep(0.02)
            service.kill()
        while record(sim.url)["executions"] < 2:  # the first ends while nobody is there
            assert time.monotonic() < end
            time.sleep(0.02)
        with serve(tmp_path, sim.url) as service, client(service) as api:
            for job_id in (first, second, third):
                job = until_status(api, job_id, "succeeded", "failed")
                assert job["status"] == "succeeded"
                assert job["attempts"] == 1
        seen = record(sim.url)
        assert seen["executions"] == 3
        assert set(seen["accepted"].values()) == {1}
    check(tmp_path / "data", [first, second, third])


def test_an_acknowledged_job_survives_kill_9_right_after_the_answer(tmp_path: Path) -> None:
    acknowledged = []
    for round_ in range(3):
        with serve(tmp_path, "http://127.0.0.1:9") as service, client(service) as api:
            acknowledged += [submit(api, 10 * round_ + n) for n in range(5)]
            service.kill()
    check(tmp_path / "data", acknowledged, all_ended=False)


def test_the_backend_killed_in_mid_job_runs_it_again_when_it_is_back(tmp_path: Path) -> None:
    slow = ("--seconds-per-step", "0.1", "--seconds-per-load", "0")
    with simulator(tmp_path, *slow) as sim:
        port = sim.url.rpartition(":")[2]
        with serve(tmp_path, sim.url) as service, client(service) as api:
            until_online(api)
            job_id = submit(api, 1)
            until_status(api, job_id, "running")
            sim.kill()
            with simulator(tmp_path, *slow, "--port", port):
                job = until_status(api, job_id, "succeeded", "failed")
                assert (job["status"], job["attempts"]) == ("succeeded", 2)
    check(tmp_path / "data", [job_id])


def test_sigterm_drains_and_exits_in_order(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--seconds-per-step", "0.05", "--seconds-per-load", "0") as sim,
        serve(tmp_path, sim.url) as service,
        client(service) as api,
    ):
        until_online(api)
        job_id = submit(api, 1)
        until_status(api, job_id, "running")
        assert service.terminate() == 0
    check(tmp_path / "data", [job_id])


def test_redis_dies_comes_back_and_hangs_while_the_service_works_and_stops(tmp_path: Path) -> None:
    with (
        valkey(options=["--requirepass", "canary"]) as redis,
        simulator(tmp_path, "--seconds-per-step", "0.01", "--seconds-per-load", "0") as sim,
        serve(tmp_path, sim.url, REDIS_URL=redis.url.replace("unix://", "unix://:canary@")) as service,
        client(service) as api,
    ):
        until_health(api, comfyui_status="connected", redis_status="connected", status="healthy")
        jobs = [submit(api, 1)]
        redis.kill()
        until_health(api, redis_status="disconnected", status="degraded")
        assert api.get("/health/ready").status_code == 200
        jobs += [submit(api, seed) for seed in (2, 3)]
        for job_id in jobs:
            until_status(api, job_id, "succeeded")
        redis.start()
        until_health(api, redis_status="connected", status="healthy")
        redis.pause()
        jobs.append(submit(api, 4))
        until_status(api, jobs[-1], "succeeded")
        until_health(api, redis_status="disconnected")
        assert service.terminate() == 0
        assert "canary" not in "".join(service.output)
        assert any('"redis_away"' in line for line in service.output)
    check(tmp_path / "data", jobs)
