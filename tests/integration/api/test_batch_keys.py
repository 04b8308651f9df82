"""`Idempotency-Key` on batches: one call, one batch, whoever asks again, and however often."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.api import SMALL, Client, connected
from tests.support.stack import FAST, online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator

BATCH = "/api/v1/generate/batch"
JOBS = "/api/v1/jobs"
TWO = {"requests": [{**SMALL, "labels": {"a": "1", "b": "2"}}, {"prompt": ""}, {**SMALL, "seed": 2}]}


async def send(client: Client, body: Any, key: str = "k", wait: str = "false") -> httpx2.Response:
    return await client.post(BATCH, json=body, headers={"Idempotency-Key": key}, params={"wait": wait})


async def listed(client: Client) -> list[Any]:
    found: list[Any] = (await client.get(JOBS)).json()["jobs"]
    return found


@pytest.mark.parametrize("wait", ["true", "false"])
async def test_the_same_call_gives_the_same_batch(client: Client, wait: str) -> None:
    first, again = [await send(client, TWO, wait=wait) for _ in range(2)]
    assert first.status_code == (201 if wait == "true" else 202)
    assert again.status_code in {201, 202}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert first.json()["batch_id"] == again.json()["batch_id"]
    ids = [[item["job_id"] for item in answer.json()["jobs"]] for answer in (first, again)]
    assert ids[0] == ids[1]
    assert [item["error"] and item["error"]["code"] for item in again.json()["jobs"]] == [
        None, "VALIDATION_ERROR", None,
    ]  # fmt: skip
    assert len(await listed(client)) == 2


async def test_two_spellings_of_one_call(client: Client) -> None:
    first = await send(client, TWO)
    one, refused, other = TWO["requests"]
    respelled = dict(reversed(one.items())) | {"labels": {"b": "2", "a": "1"}, "num_images": 1}
    again = await send(client, {"requests": [respelled, refused, other]})
    assert again.json()["batch_id"] == first.json()["batch_id"]


async def test_another_call_with_the_key_is_refused(client: Client) -> None:
    await send(client, TWO)
    one, refused, other = TWO["requests"]
    for requests in ([other, refused, one], [one, refused], [one, {"prompt": 1}, other]):
        answer = await send(client, {"requests": requests})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(await listed(client)) == 2


async def test_jobs_and_batches_have_the_same_keys(client: Client) -> None:
    await send(client, {"requests": [SMALL]}, key="batch")
    await client.post(JOBS, json=SMALL, headers={"Idempotency-Key": "job"})
    answers = [
        await client.post(JOBS, json=SMALL, headers={"Idempotency-Key": "batch"}),
        await send(client, {"requests": [SMALL]}, key="job"),
    ]
    assert [answer.json()["error"]["code"] for answer in answers] == ["IDEMPOTENCY_KEY_REUSED"] * 2


async def test_a_bad_key_is_refused(client: Client) -> None:
    answer = await send(client, TWO, key="x" * 256)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR")


async def test_many_at_once_make_one_batch(client: Client) -> None:
    answers = await asyncio.gather(*(send(client, TWO) for _ in range(20)))
    assert len({answer.json()["batch_id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    assert len(await listed(client)) == 2


async def test_a_key_is_forgotten_after_a_day(client: Client, service: Service) -> None:
    first = await send(client, TWO)
    day = 24 * 3600 + 1
    await service.db.write(
        lambda tx: tx.run("UPDATE idempotency_keys SET created_at = created_at - :day", {"day": day})
    )
    assert (await send(client, {"requests": [SMALL]})).json()["batch_id"] != first.json()["batch_id"]


async def test_a_batch_of_which_nothing_was_taken_leaves_its_key_free(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url, queue_limit=1) as service:
        await online(service)
        await sim.faults.die()

        async def away() -> bool:
            return (await service.pool.refresh()).online == 0

        await until(away)
        async with connected(service.app) as client:
            assert (await send(client, {"requests": [{"prompt": ""}]}, key="bad")).json()["failed"] == 1
            assert (await send(client, {"requests": [SMALL]}, key="bad")).status_code == 202
            full = await send(client, {"requests": [SMALL, SMALL]})
            assert [item["error"]["code"] for item in full.json()["jobs"]] == ["QUEUE_LIMIT_EXCEEDED"] * 2
            (waiting,) = await listed(client)
            await client.delete(f"{JOBS}/{waiting['job_id']}")
            again = await send(client, {"requests": [SMALL, SMALL]})
            assert "idempotent-replayed" not in again.headers
            assert [item["status"] for item in again.json()["jobs"]] == ["queued", "failed"]
            assert "idempotent-replayed" in (await send(client, {"requests": [SMALL, SMALL]})).headers


@pytest.mark.sqlite  # the trigger is written for it
async def test_a_batch_is_written_whole_or_not_at_all(client: Client, service: Service) -> None:
    """The second job's last row fails, as if the process had died there."""
    await service.db.write(
        lambda tx: tx.run(
            """CREATE TRIGGER broken BEFORE INSERT ON outbox WHEN (SELECT count(*) FROM outbox) = 1
               BEGIN SELECT RAISE(ABORT, 'made up'); END"""
        )
    )
    assert (await send(client, TWO)).status_code >= 500
    for table in ("jobs", "batches", "idempotency_keys", "lane_needs"):
        row = await service.db.read(lambda tx, table=table: tx.one(f"SELECT count(*) AS n FROM {table}"))  # type: ignore[misc]
        assert row is not None
        assert row["n"] == 0, table
    await service.db.write(lambda tx: tx.run("DROP TRIGGER broken"))
    again = await send(client, TWO)
    assert "idempotent-replayed" not in again.headers
    assert len(await listed(client)) == 2
