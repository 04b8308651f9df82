"""Jobs over HTTP: read, list, cancel, purge, retry."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import SMALL, Client, connected
from tests.support.stack import SLOW, ended, online, running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator

JOBS = "/api/v1/jobs"
ABSENT = f"{JOBS}/job_0123456789ABCDEFGHJKMNPQRS"


async def submit(client: Client, **more: Any) -> str:
    answer = await client.post(JOBS, json={**SMALL, **more})
    assert answer.status_code == 202
    job_id: str = answer.json()["job_id"]
    return job_id


async def test_a_finished_job_has_the_documented_shape(client: Client, service: Service) -> None:
    job_id = await submit(client, seed=7)
    await ended(service, job_id)
    job = (await client.get(f"{JOBS}/{job_id}/")).json()
    assert (job["status"], job["progress"], job["attempts"], job["canceling"]) == ("succeeded", 100, 1, False)
    assert job["queued_at"] <= job["started_at"] <= job["finished_at"]
    assert job["result"]["cache"] == "none"
    artifact = job["result"]["artifacts"][0]
    assert (artifact["kind"], artifact["media_type"], artifact["seed"]) == ("image", "image/png", 7)
    assert artifact["url"].startswith("http://service.test/artifacts/jobs/")
    assert (await client.get(artifact["url"])).status_code == 200


@pytest.mark.parametrize(
    "path", [ABSENT, f"{JOBS}/nonsense", f"{JOBS}/job_%00", f"{JOBS}/%F0%9F%96%BC", f"{JOBS}/x%2F.."]
)
async def test_what_is_not_there(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_pages_follow_each_other_newest_first(client: Client) -> None:
    ids = [await submit(client) for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = (await client.get(JOBS, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [job["job_id"] for job in page["jobs"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "ajpqb2JfMQ"}, "cursor"),
        ({"cursor": "m" * 2000}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "1.0"}, "limit"),
        ({"limit": "1_0"}, "limit"),
        ({"status": "done"}, "status.0"),
        ({"batch_id": "x"}, "batch_id"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-13-01"}, "until"),
        ({"label": "no colon"}, "label"),
        ({"label": "key:\0"}, "label"),
        ({"workflow_id": "X"}, "workflow_id"),
    ],
)
@pytest.mark.sqlite
async def test_bad_queries_are_refused_by_name(client: Client, query: dict[str, Any], field: str) -> None:
    answer = await client.get(JOBS, params=query)
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["errors"][0]["field"] == field


async def test_filters(client: Client, service: Service) -> None:
    labelled = await submit(client, labels={"team": "a:b"})
    plain = await submit(client)
    await ended(service, plain)
    await ended(service, labelled)

    async def found(**query: Any) -> list[str]:
        return [job["job_id"] for job in (await client.get(JOBS, params=query)).json()["jobs"]]

    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert await found(label="team:a:b") == [labelled]
    assert await found(status=["succeeded", "failed"]) == [plain, labelled]
    assert await found(status="queued") == []
    assert await found(since=later) == []
    assert await found(until=later) == [plain, labelled]
    assert await found(since="2026-01-01T00:00:00Z", until="2026-01-01T00:00:00+01:00") == []


async def test_purge_deletes_results_and_leaves_the_job(client: Client, service: Service) -> None:
    job_id = await submit(client)
    await ended(service, job_id)
    link = (await client.get(f"{JOBS}/{job_id}")).json()["result"]["artifacts"][0]["url"]
    for _ in range(2):
        job = (await client.delete(f"{JOBS}/{job_id}", params={"purge": "true"})).json()
        assert job["status"] == "succeeded"
        assert job["purged_at"] is not None
        assert job["result"]["artifacts"] == []
    for path in (f"{JOBS}/{job_id}/image", link):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "GONE")


async def test_a_finished_job_cannot_be_canceled_but_run_again(client: Client, service: Service) -> None:
    job_id = await submit(client)
    await ended(service, job_id)
    for answer in (await client.post(f"{JOBS}/{job_id}/cancel"), await client.delete(f"{JOBS}/{job_id}")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "CONFLICT")
    again = await client.post(f"{JOBS}/{job_id}/retry")
    assert again.status_code == 202
    assert again.json()["job_id"] != job_id
    old = (await client.get(f"{JOBS}/{job_id}")).json()
    new = (await client.get(again.json()["location"])).json()
    assert old["params"] == new["params"]


async def test_waiting_and_running_jobs(tmp_path: Path) -> None:
    async with (
        Simulator(SLOW) as sim,
        running(tmp_path, sim.url) as service,
        connected(service.app) as client,
    ):
        await online(service)
        first = await submit(client, steps=40)
        waiting = [await submit(client) for _ in range(3)]
        assert (await client.post(f"{JOBS}/{first}/retry")).status_code == 409
        assert (await client.get(f"{JOBS}/{first}/image")).status_code == 409
        assert (await client.delete(f"{JOBS}/{first}", params={"purge": "1"})).status_code == 409
        canceled = (await client.delete(f"{JOBS}/{waiting[-1]}")).json()
        assert canceled["status"] == "canceled"
        stopping = (await client.post(f"{JOBS}/{first}/cancel")).json()
        assert stopping["canceling"] or stopping["status"] == "canceled"
        assert (await ended(service, first)).status == "canceled"


@pytest.mark.sqlite
async def test_switched_off(tmp_path: Path, sim: Simulator) -> None:
    async with (
        running(tmp_path, sim.url, jobs_enabled=False) as service,
        connected(service.app) as client,
    ):
        await online(service)
        for method, path in (
            ("POST", JOBS),
            ("GET", JOBS),
            ("GET", ABSENT),
            ("DELETE", ABSENT),
            ("GET", f"{ABSENT}/events"),
            ("GET", f"{ABSENT}/image"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.post("/api/v1/generate", json=SMALL)).status_code == 201
