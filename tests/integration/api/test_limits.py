"""What a limited caller may do, and what it is told of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import SMALL, Client, connected
from tests.support.people import AUTH, calling, person
from tests.support.stack import online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.services.users import Changes
from comfy_api_service.simulator import Simulator


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at - 1_700_000_000.0


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url, **AUTH) as service:
        await online(service)
        yield service


def counted(service: Service, name: str, **labels: str) -> float | None:
    return service.services.metrics.registry.get_sample_value(name, labels)


async def submitted(client: Client, **fields: Any) -> int:
    return (await client.post("/api/v1/jobs", json={**SMALL, **fields})).status_code


async def test_headers_tell_the_bucket_request_by_request(tmp_path: Path, sim: Simulator) -> None:
    clock = Hand()
    async with running(tmp_path, sim.url, clock=clock, **AUTH) as service:
        free = await person(service, tier="free", overrides={"images_per_day": "none", "waiting": "none"})
        async with calling(service, free) as client:
            answers = [await client.post("/api/v1/jobs", json=SMALL) for _ in range(6)]
            for answer in answers:
                assert answer.headers["x-ratelimit-limit"] == "5"
                assert answer.headers["ratelimit-policy"] == '"submissions";q=5;w=60'
            left = [(answer.status_code, answer.headers["x-ratelimit-remaining"]) for answer in answers]
            answer = answers[-1]
            assert left == [(202, "4"), (202, "3"), (202, "2"), (202, "1"), (202, "0"), (429, "0")]
            assert answer.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
            assert answer.headers["retry-after"] == "12"
            assert int(answer.headers["x-ratelimit-reset"]) == clock.at + 60
            clock.at += 11.9
            assert await submitted(client) == 429
            clock.at += 0.1
            answer = await client.post("/api/v1/jobs", json=SMALL)
            assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (202, "0")
            reads = await client.get("/api/v1/jobs")
            assert reads.headers["ratelimit-policy"] == '"reads";q=100;w=60'
            assert (reads.status_code, reads.headers["x-ratelimit-remaining"]) == (200, "99")


async def test_each_request_of_a_batch_is_a_submission(service: Service) -> None:
    free = await person(service, tier="free", overrides={"images_per_day": "none"})
    async with calling(service, free) as client:
        answer = await client.post(
            "/api/v1/generate/batch", params={"wait": "false"}, json={"requests": [SMALL] * 7}
        )
        items = answer.json()["jobs"]
        errors = [item["error"]["code"] for item in items if item.get("error")]
        assert errors == ["RATE_LIMIT_EXCEEDED"] * 2
        assert await submitted(client) == 429


async def test_administrators_and_who_is_not_limited_are_told_nothing(service: Service) -> None:
    admin = await person(service, tier="free", role=Role.ADMIN)
    async with calling(service, admin) as client:
        for _ in range(12):
            answer = await client.post("/api/v1/jobs", json=SMALL)
            assert answer.status_code == 202
            assert not [name for name in answer.headers if "ratelimit" in name]


async def test_images_of_the_day_end_at_its_end(tmp_path: Path, sim: Simulator) -> None:
    clock = Hand()
    async with running(tmp_path, sim.url, clock=clock, **AUTH) as service:
        basic = await person(service, tier="basic", overrides={"images_per_day": 6, "waiting": 99})
        async with calling(service, basic) as client:
            assert await submitted(client, batch_size=4) == 202
            refused = await client.post("/api/v1/jobs", json={**SMALL, "batch_size": 3})
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert error["code"] == "QUOTA_EXCEEDED"
            assert counted(service, "comfyui_requests_limited_total", limit="images") == 1
            assert error["details"] == {
                "limit": 6,
                "used": 4,
                "requested": 3,
                "reset_at": "2027-01-16T00:00:00.000Z",
            }
            assert int(refused.headers["retry-after"]) == 57_600
            usage = (await client.get("/api/v1/usage")).json()
            assert usage["left"]["images_today"] == 2
            assert usage["days"] == [{"day": "2027-01-15", "images": 0, "reserved": 4, "gpu_seconds": 0.0}]
            clock.at += 57_600
            assert await submitted(client, batch_size=4) == 202


async def test_usage_is_what_was_made(service: Service) -> None:
    who = await person(service)
    async with calling(service, who) as client:
        made = await client.post("/api/v1/generate", json={**SMALL, "batch_size": 2})
        assert made.status_code == 201

        async def told() -> bool:
            (day,) = (await client.get("/api/v1/usage")).json()["days"]
            return (day["images"], day["reserved"]) == (2, 0) and day["gpu_seconds"] > 0

        await until(told)


async def test_no_more_wait_than_may(service: Service, sim: Simulator) -> None:
    sim.faults.hang()
    who = await person(service, overrides={"waiting": 2, "running": 0})
    async with calling(service, who) as client:
        statuses = [await submitted(client) for _ in range(3)]
        assert statuses == [202, 202, 429]
        assert counted(service, "comfyui_requests_limited_total", limit="waiting") == 1


async def test_a_raised_cap_takes_effect_on_the_next_claim(service: Service) -> None:
    who = await person(service, overrides={"running": 0})
    async with calling(service, who) as client:
        job = (await client.post("/api/v1/jobs", json=SMALL)).json()
        sims = await client.get(job["status_url"])
        assert sims.json()["status"] == "queued"
        await service.services.users.change(who.user.id, Changes(overrides={"running": 1}), SHELL)

        async def done() -> bool:
            return bool((await client.get(job["status_url"])).json()["status"] == "succeeded")

        await until(done)


async def test_limits_can_be_switched_off(tmp_path: Path, sim: Simulator) -> None:
    async with running(tmp_path / "x", sim.url, **AUTH, rate_limit_enabled=False) as service:
        free = await person(service, tier="free")
        async with calling(service, free) as client:
            assert [await submitted(client) for _ in range(12)] == [202] * 12


async def test_strangers_are_limited_by_address(service: Service) -> None:
    async with connected(service.app) as client:
        statuses = {(await client.get("/api/v1/jobs")).status_code for _ in range(60)}
        assert statuses == {401}
        assert (await client.get("/api/v1/jobs")).status_code == 429
        assert counted(service, "comfyui_credentials_refused_total") == 61
        assert counted(service, "comfyui_requests_limited_total", limit="strangers") == 1
        assert (await client.get("/ping")).status_code == 200


async def test_a_batch_is_replayed_whatever_its_bucket_holds(tmp_path: Path, sim: Simulator) -> None:
    clock = Hand()
    async with running(tmp_path, sim.url, clock=clock, **AUTH) as service:
        free = await person(service, tier="free", overrides={"images_per_day": "none"})
        async with calling(service, free) as client:
            call: dict[str, Any] = {
                "url": "/api/v1/generate/batch?wait=false",
                "json": {"requests": [SMALL] * 4},
                "headers": {"Idempotency-Key": "once"},
            }
            first = (await client.post(**call)).json()
            clock.at += 12
            again = await client.post(**call)  # two tokens for four requests
            assert again.headers["idempotent-replayed"] == "true"
            assert again.json()["batch_id"] == first["batch_id"]
