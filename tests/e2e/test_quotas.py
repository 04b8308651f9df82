"""Quotas and keys over two API processes, whatever becomes of Redis and of one of the processes."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.e2e.test_roles import until
from tests.support.checker import check
from tests.support.people import enter
from tests.support.postgres import PostgresServer, blocking
from tests.support.processes import Process, api, client, simulator, until_online, worker
from tests.support.schema import bound, copied
from tests.support.valkey import Valkey, valkey

from comfy_api_service.domain.account import Role

LEFT = 10
SENDERS = 50
BODY = {"prompt": "a lighthouse", "steps": 2, "width": 64, "height": 64}
FAST = ("--seconds-per-step", "0.005", "--seconds-per-load", "0")
TIERS = "[free]\nsubmissions_per_minute = 100000\nwaiting = 'none'\nrunning = 4\nimages_per_day = 10\n"


@pytest.fixture
def redis() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def shared(tmp_path: Path, postgres: PostgresServer, redis: Valkey) -> Iterator[dict[str, str]]:
    (tmp_path / "tiers.toml").write_text(TIERS)
    with copied(postgres) as url, bound(tmp_path, url):
        yield {
            "DATABASE_URL": url,
            "REDIS_URL": redis.url,
            "AUTH_ENABLED": "true",
            "TIERS_FILE": str(tmp_path / "tiers.toml"),
            "SECRET_KEY": "4b0f6a1d9c3e5a7788d2e1f0c9b8a7d6",
        }


def asked(url: str, query: str, *values: Any) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query, *values)
        finally:
            await connection.close()

    return blocking(ask)


async def _send(doors: Sequence[str], key: str, count: int, halfway: Any = None) -> list[httpx2.Response]:
    """So many submissions, `SENDERS` at a time, to the doors in turn; `halfway` is called after half of them."""
    numbers, answers = itertools.count(), []
    limits = httpx2.Limits(max_connections=SENDERS)

    async def sender() -> None:
        while (number := next(numbers)) < count:
            if number == count // 2 and halfway is not None:
                await asyncio.to_thread(halfway)
            answers.append(
                await http.post(f"{doors[number % len(doors)]}/api/v1/jobs", json={**BODY, "seed": number})
            )

    async with httpx2.AsyncClient(
        timeout=30, trust_env=False, headers={"X-API-Key": key}, limits=limits
    ) as http:
        await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return answers


@pytest.mark.parametrize("fate", ["up", "down", "flushed"])
def test_ten_images_left_are_ten_admitted(
    tmp_path: Path, shared: dict[str, str], redis: Valkey, fate: str
) -> None:
    account, key = enter(shared["DATABASE_URL"])
    with (
        simulator(tmp_path, *FAST) as sim,
        api(tmp_path, **shared) as one,
        api(tmp_path, **shared) as two,
    ):
        if fate == "down":
            redis.kill()
        flush = (lambda: redis.command("FLUSHALL")) if fate == "flushed" else None
        answers = asyncio.run(_send((one.url, two.url), key, 500, flush))
        told = Counter(answer.status_code for answer in answers)
        assert told == {202: LEFT, 429: 500 - LEFT}
        codes = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 429}
        assert codes == {"QUOTA_EXCEEDED"}
        with worker(tmp_path, "--comfyui-url", sim.url, **shared):
            until(
                lambda: asked(
                    shared["DATABASE_URL"], "SELECT count(*) = 10 FROM jobs WHERE state = 'succeeded'"
                )
            )
        query = "SELECT charged, reserved FROM usage_days WHERE account_id = $1"
        assert asked(shared["DATABASE_URL"], query, account) == LEFT
        made = asked(shared["DATABASE_URL"], "SELECT count(*) FROM artifacts")
        assert asked(shared["DATABASE_URL"], "SELECT sum(charged) FROM ledger") == made == LEFT
        ids = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    check(tmp_path, ids, artifacts=tmp_path / "data" / "artifacts")


def test_caps_hold_over_two_workers_and_a_raised_one_from_the_next_claim_on(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    (tmp_path / "tiers.toml").write_text(TIERS.replace("images_per_day = 10", "images_per_day = 'none'"))
    url = shared["DATABASE_URL"]
    account, key = enter(url, overrides={"running": 1})
    _, of_admin = enter(url, role=Role.ADMIN)
    slow = ("--seconds-per-step", "0.1", "--seconds-per-load", "0")
    count = "SELECT count(*) FROM jobs WHERE account_id = $1 AND state IN ('dispatched', 'executing')"
    most: dict[bool, int] = {False: 0, True: 0}
    with (
        simulator(tmp_path, *slow) as one,
        simulator(tmp_path, *slow) as two,
        api(tmp_path, **shared) as door,
        worker(tmp_path, "--comfyui-url", one.url, **shared),
        worker(tmp_path, "--comfyui-url", two.url, **shared),
        client(door) as http,
    ):
        http.headers["X-API-Key"] = key
        until_online(http)
        ids = [http.post("/api/v1/jobs", json=BODY).json()["job_id"] for _ in range(24)]
        raised = False
        while (left := asked(url, "SELECT queued + running FROM lanes WHERE account_id = $1", account)) > 0:
            most[raised] = max(most[raised], asked(url, count, account))
            if left <= 18 and not raised:
                changes = {"overrides": {"running": 3}}
                answer = http.patch(f"/admin/users/{account}", json=changes, headers={"X-API-Key": of_admin})
                assert answer.status_code == 200, answer.text
                raised = True
        until(lambda: asked(url, "SELECT count(*) = 24 FROM jobs WHERE state = 'succeeded'"))
    assert most == {False: 1, True: 3}
    check(tmp_path, ids, artifacts=tmp_path / "data" / "artifacts")


def test_tiers_get_their_shares_over_two_workers(tmp_path: Path, shared: dict[str, str]) -> None:
    """Weights 1, 2 and 5 by tier, all with more to do than is done."""
    weights = {"free": 1, "basic": 2, "pro": 5}
    (tmp_path / "tiers.toml").write_text(
        "\n".join(
            f"[{tier}]\nsubmissions_per_minute = 100000\nwaiting = 'none'\nrunning = 'none'\n"
            f"images_per_day = 'none'\nweight = {weight}"
            for tier, weight in weights.items()
        )
    )
    url = shared["DATABASE_URL"]
    people = {tier: enter(url, tier=tier) for tier in weights}
    with (
        simulator(tmp_path, *FAST) as one,
        simulator(tmp_path, *FAST) as two,
        api(tmp_path, **shared) as door,
        client(door) as http,
    ):
        with worker(tmp_path, "--comfyui-url", one.url, **shared):
            http.headers["X-API-Key"] = people["free"][1]
            until_online(http)
            until(lambda: _cost_of_another(http, url) < 1)  # what a job takes is measured now
            until(lambda: asked(url, "SELECT sum(queued + running) FROM lanes") == 0)
        for tier, (_, key) in people.items():
            answers = asyncio.run(_send((door.url,), key, 30 + 60 * weights[tier]))
            assert {answer.status_code for answer in answers} == {202}
        before = asked(url, "SELECT count(*) FROM jobs WHERE started_at IS NOT NULL")
        with (
            worker(tmp_path, "--comfyui-url", one.url, **shared),
            worker(tmp_path, "--comfyui-url", two.url, **shared),
        ):
            until(lambda: asked(url, f"SELECT count(settled_at) = 400 FROM ({_FIRST}) AS first", before))
            done = asked(
                url,
                f"""SELECT json_object_agg(account_id, seconds) FROM (
                      SELECT account_id, sum(gpu_seconds) AS seconds FROM ({_FIRST}) AS first GROUP BY account_id
                    ) AS shares""",
                before,
            )
    seconds = {tier: json.loads(done)[account] for tier, (account, _) in people.items()}
    shares = {tier: taken / sum(seconds.values()) for tier, taken in seconds.items()}
    assert shares == {tier: pytest.approx(weight / 8, rel=0.1) for tier, weight in weights.items()}


_FIRST = """SELECT l.account_id, l.gpu_seconds, l.settled_at FROM jobs j JOIN ledger l ON l.job_id = j.id
              WHERE j.started_at IS NOT NULL ORDER BY j.started_at LIMIT 400 OFFSET $1"""
"""What is shared is the time of GPUs: on a busy machine a job takes the longer, the more run beside it."""


def _cost_of_another(http: httpx2.Client, url: str) -> float:
    """What one more job is reckoned to cost, in seconds."""
    job = http.post("/api/v1/jobs", json=BODY).json()["job_id"]
    return float(asked(url, "SELECT cost FROM jobs WHERE id = $1", job))


def test_a_thousand_keys_of_fifty_senders_are_a_thousand_jobs(tmp_path: Path, shared: dict[str, str]) -> None:
    """Each key is sent by two senders at once, and by all until it is answered; one process is killed meanwhile."""
    (tmp_path / "tiers.toml").write_text(TIERS.replace("images_per_day = 10", "images_per_day = 'none'"))
    _, key = enter(shared["DATABASE_URL"])
    with (
        simulator(tmp_path, *FAST) as sim,
        api(tmp_path, **shared) as one,
        api(tmp_path, **shared) as two,
        worker(tmp_path, "--comfyui-url", sim.url, **shared),
        client(two) as http,
    ):
        http.headers["X-API-Key"] = key
        until_online(http)
        told = asyncio.run(_keys((one.url, two.url), key, one))
    assert len(told) == 1000
    assert all(len(jobs) == 1 for jobs in told.values())
    ids = [next(iter(jobs)) for jobs in told.values()]
    assert len(set(ids)) == 1000
    assert asked(shared["DATABASE_URL"], "SELECT count(*) FROM jobs") == 1000
    check(tmp_path, ids, all_ended=False, artifacts=tmp_path / "data" / "artifacts")


async def _keys(doors: tuple[str, str], key: str, victim: Process) -> dict[int, set[str]]:
    """The jobs that were told, by number of the key."""
    told: dict[int, set[str]] = {}
    sent = itertools.count()
    order = [number for start in range(0, 1000, 25) for number in (*range(start, start + 25),) * 2]

    async def sender(first: int) -> None:
        for number in order[first::SENDERS]:
            if next(sent) == 700:
                victim.kill()
            await one(number)

    async def one(number: int) -> None:
        headers = {"Idempotency-Key": f"key-{number}"}
        for door in itertools.cycle(doors):
            try:
                answer = await http.post(
                    f"{door}/api/v1/jobs", json={**BODY, "seed": number}, headers=headers
                )
            except httpx2.TransportError:
                continue
            if answer.status_code in (200, 202):
                told.setdefault(number, set()).add(answer.json()["job_id"])
                assert answer.status_code == 202 or answer.headers["idempotent-replayed"] == "true"
                return
            assert answer.status_code == 503, answer.text

    async with httpx2.AsyncClient(timeout=30, trust_env=False, headers={"X-API-Key": key}) as http:
        await asyncio.gather(*(sender(first) for first in range(SENDERS)))
    return told
