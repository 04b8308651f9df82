"""Submit and wait, alone and in batches."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.api import SMALL, Client, connected, serving
from tests.support.stack import SLOW, online, reached, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator

GENERATE = "/api/v1/generate"
BATCH = f"{GENERATE}/batch"


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Service]:
    async with Simulator(SLOW) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        yield service


async def test_a_picture_for_a_request(client: Client) -> None:
    answer = await client.post(GENERATE, json={**SMALL, "seed": 5, "num_images": 2})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (201, "completed")
    assert body["image_url"] == body["images"][0]["url"]
    assert len(body["images"]) == 2
    assert body["metadata"]["seed"] == 5
    assert body["created_at"] <= body["completed_at"]
    again = await client.get(f"{GENERATE}/{body['job_id']}")
    assert again.json()["status"] == "completed"
    image = await client.get(f"{GENERATE}/{body['job_id']}/image", params={"index": 1})
    assert image.content.startswith(b"\x89PNG")


async def test_a_replay_gives_the_picture_again(client: Client) -> None:
    first, again = [
        await client.post(GENERATE, json=SMALL, headers={"Idempotency-Key": "g"}) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert first.json()["job_id"] == again.json()["job_id"]


async def test_not_ready_in_time(slow: Service) -> None:
    async with connected(slow.app) as client:
        answer = await client.post(GENERATE, json={**SMALL, "steps": 50}, headers={"Prefer": "wait=1"})
        body = answer.json()
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "wait=1"
        assert body["status"] == "processing"
        assert answer.headers["location"].endswith(f"{GENERATE}/{body['job_id']}")
        assert (body["image_url"], body["images"], body["completed_at"]) == (None, [], None)


async def test_a_canceled_job_is_a_conflict(slow: Service) -> None:
    async with connected(slow.app) as client:
        waiting = asyncio.create_task(client.post(GENERATE, json={**SMALL, "steps": 50}))

        async def there() -> bool:
            return bool((await client.get("/api/v1/jobs")).json()["jobs"])

        await until(there)
        job_id = (await client.get("/api/v1/jobs")).json()["jobs"][0]["job_id"]
        await client.delete(f"/api/v1/jobs/{job_id}")
        answer = await waiting
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["details"]["job_id"]) == (409, "CONFLICT", job_id)


async def test_a_failed_job_is_its_error(client: Client, sim: Simulator) -> None:
    sim.faults.fail_node("KSampler")
    answer = await client.post(GENERATE, json=SMALL)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "EXECUTION_FAILED")
    assert error["details"]["job_id"].startswith("job_")
    shown = (await client.get(f"{GENERATE}/{error['details']['job_id']}")).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "EXECUTION_FAILED")


async def test_without_a_backend_nothing_is_queued(lonely: Client) -> None:
    for path, body in ((GENERATE, SMALL), (BATCH, {"requests": [SMALL]})):
        answer = await lonely.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "BACKEND_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) > 0
    assert (await lonely.get("/api/v1/jobs")).json()["jobs"] == []
    assert (await lonely.post("/api/v1/jobs", json=SMALL)).status_code == 202
    assert (await lonely.post(f"{BATCH}?wait=false", json={"requests": [SMALL]})).status_code == 202
    assert (await lonely.get("/health")).json()["status"] == "degraded"


@pytest.mark.parametrize(("query", "canceled"), [("", False), ("?cancel_on_disconnect=true", True)])
async def test_a_caller_that_leaves(slow: Service, query: str, canceled: bool) -> None:
    async with serving(slow.app) as url, httpx2.AsyncClient(base_url=url) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(f"{GENERATE}{query}", json={**SMALL, "steps": 60}, timeout=1)
        job_id = (await client.get("/api/v1/jobs")).json()["jobs"][0]["job_id"]
        await until(lambda: slow.services.metrics.http_in_progress._value.get() == 0)
        if canceled:
            await reached(slow, job_id, State.CANCELED)
        else:
            view = await slow.services.jobs.get(LOCAL, job_id)
            assert view.job.state is State.EXECUTING
            assert not view.job.canceling


@pytest.mark.sqlite
async def test_a_stop_answers_who_waits(slow: Service) -> None:
    async with serving(slow.app) as url, httpx2.AsyncClient(base_url=url, timeout=10) as client:
        waiting = asyncio.create_task(client.post(GENERATE, json={**SMALL, "steps": 100}))

        async def there() -> bool:
            return bool((await client.get("/api/v1/jobs")).json()["jobs"])

        await until(there)
        app: Any = slow.app
        app.drain()
        assert (await waiting).status_code == 202
        assert (await client.get("/health/ready")).status_code == 503


async def test_a_batch_takes_each_on_its_own(client: Client) -> None:
    requests = [SMALL, {"prompt": ""}, {**SMALL, "model": "none"}, "nonsense", {**SMALL, "image": "x"}, SMALL]
    answer = await client.post(BATCH, json={"requests": requests})
    batch = answer.json()
    assert answer.status_code == 201
    assert (batch["total"], batch["completed"], batch["failed"]) == (6, 2, 4)
    assert [item["status"] for item in batch["jobs"]] == ["completed", *["failed"] * 4, "completed"]
    assert [item["error"] and item["error"]["code"] for item in batch["jobs"]] == [
        None, "VALIDATION_ERROR", "MODEL_NOT_FOUND", "VALIDATION_ERROR", "INVALID_INPUT", None,
    ]  # fmt: skip
    again = (await client.get(batch["status_url"])).json()
    assert [item["job_id"] for item in again["jobs"]] == [item["job_id"] for item in batch["jobs"]]
    listed = (await client.get("/api/v1/jobs", params={"batch_id": batch["batch_id"]})).json()["jobs"]
    assert len(listed) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"requests": [SMALL] * 11},
        {"requests": []},
        {"requests": SMALL},
        {},
        {"requests": [SMALL], "more": 1},
        [SMALL],
    ],
)
@pytest.mark.sqlite
async def test_a_batch_that_is_none(client: Client, body: Any) -> None:
    answer = await client.post(BATCH, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert (await client.get("/api/v1/jobs")).json()["jobs"] == []


@pytest.mark.sqlite
async def test_nan_in_a_batch_is_refused_on_its_own(client: Client) -> None:
    body = b'{"requests": [{"prompt": "x", "cfg_scale": NaN}, {"prompt": "x", "width": 64, "height": 64}]}'
    answer = await client.post(BATCH, content=body, headers={"Content-Type": "application/json"})
    assert [item["status"] for item in answer.json()["jobs"]] == ["failed", "completed"]
