"""Webhooks as callers use them and receivers see them: registered, signed, delivered, logged, sent again."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import WebhookVerificationError
from tests.support.api import SMALL, Client, connected
from tests.support.receivers import Receiver, receiver
from tests.support.stack import ended, online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db.base import Reader, Tx
from comfy_api_service.domain.redelivery import DELIVERY_SECONDS, LAST_SECONDS
from comfy_api_service.domain.times import seconds_of
from comfy_api_service.services import lane_work
from comfy_api_service.services.lane_work import START
from comfy_api_service.services.webhooks import MOST
from comfy_api_service.simulator import Simulator

PATH = "/api/v1/webhooks"
ALL = ["job.running", "job.succeeded", "job.failed", "job.canceled"]


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    given: dict[str, Any] = {
        "webhook_allow_private": True,
        "webhook_retry_delay": 0.05,
        "public_url": "https://api.example.com",
    }
    async with running(tmp_path, sim.url, **given) as service:
        await online(service)
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    async with connected(service.app) as client:
        yield client


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def created(client: Client, url: str, *events: str) -> dict[str, Any]:
    answer = await client.post(PATH, json={"url": url, "events": list(events) or ALL})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def submitted(client: Client, **options: Any) -> str:
    answer = await client.post("/api/v1/jobs", json={**SMALL, **options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def log_of(client: Client, webhook_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"{PATH}/{webhook_id}/deliveries")).json()["deliveries"]
    return found


async def test_a_job_is_told_of_to_webhooks_and_to_its_own_url(client: Client, there: Receiver) -> None:
    async with receiver() as own:
        made = await created(client, there.url)
        secret = (await client.post(f"{PATH}/secret")).json()["secret"]
        job_id = await submitted(client, webhook_url=own.url, labels={"order": "4711"})
        for came, key in ((await there.until(2), made["secret"]), (await own.until(2), secret)):
            found = {one.verified(key)["type"]: one for one in came}
            assert set(found) == {"job.running", "job.succeeded"}
            running, ended = found["job.running"].data, found["job.succeeded"].data
            assert (running["seq"], running["status"], running["result"]) == (2, "running", None)
            assert (ended["seq"], ended["status"], ended["job_id"]) == (4, "succeeded", job_id)
            assert ended["labels"] == {"order": "4711"}
            (artifact,) = ended["result"]["artifacts"]
            assert artifact["url"].startswith("https://api.example.com/artifacts/")
            link = artifact["url"].removeprefix("https://api.example.com")
            assert (await client.get(link)).status_code == 200
            assert SMALL["prompt"].encode() not in b"".join(one.body for one in came)
        with pytest.raises(WebhookVerificationError):
            own.came[0].verified(made["secret"])


@pytest.mark.sqlite
async def test_only_what_was_asked_for_is_told_and_nothing_of_before(
    service: Service, client: Client, there: Receiver
) -> None:
    await ended(service, await submitted(client))
    await created(client, there.url, "job.succeeded")
    later = await submitted(client)
    await there.until(1)
    await ended(service, await submitted(client))
    came = await there.until(2)
    assert there.types() == ["job.succeeded"] * 2
    assert came[0].data["job_id"] == later


async def test_both_secrets_sign_while_they_overlap(
    service: Service, client: Client, there: Receiver
) -> None:
    made = await created(client, there.url)
    path = f"{PATH}/{made['webhook_id']}"
    second = (await client.post(f"{path}/rotate")).json()
    assert second["old_secret_until"] is not None
    await client.post(f"{path}/test")
    (first,) = await there.until(1)
    for secret in (made["secret"], second["secret"]):
        assert first.verified(secret)["type"] == "webhook.test"
    await service.db.write(lambda tx: tx.run("UPDATE webhooks SET old_secret_until = 1"))
    await client.post(f"{path}/test")
    last = (await there.until(2))[1]
    last.verified(second["secret"])
    with pytest.raises(WebhookVerificationError):
        last.verified(made["secret"])


@pytest.mark.sqlite
async def test_secrets_are_shown_once_and_kept_sealed(
    service: Service, client: Client, there: Receiver, logged: list[Any]
) -> None:
    made = await created(client, there.url)
    rotated = (await client.post(f"{PATH}/{made['webhook_id']}/rotate")).json()["secret"]
    account = (await client.post(f"{PATH}/secret")).json()["secret"]
    await client.post(f"{PATH}/{made['webhook_id']}/test")
    await there.until(1)
    secrets = [made["secret"], rotated, account]
    raw = [base64.b64decode(one.removeprefix("whsec_")) for one in secrets]
    for path in (PATH, f"{PATH}/{made['webhook_id']}", f"{PATH}/secret", f"{PATH}/deliveries"):
        text = (await client.get(path)).text
        assert not any(one in text for one in secrets)
    rows = await service.db.read(
        lambda tx: tx.all(
            """SELECT secret, old_secret FROM webhooks UNION ALL SELECT secret, old_secret FROM webhook_secrets"""
        )
    )
    kept = [bytes(row[name]) for row in rows for name in ("secret", "old_secret") if row[name] is not None]
    assert len(kept) == 3
    assert not any(one in sealed for one in raw for sealed in kept)
    assert not any(one in str(logged) for one in secrets)
    assert "whk_" in str(await audited(service))


async def audited(service: Service) -> list[Any]:
    rows = await service.db.read(lambda tx: tx.all("SELECT action, data FROM audit ORDER BY id"))
    return [(row["action"], row["data"]) for row in rows]


async def test_a_delivery_is_tried_again_with_the_same_id_until_it_is_taken(
    client: Client, there: Receiver
) -> None:
    made = await created(client, there.url, "job.succeeded")
    answers = iter((500, 302))
    there.respond = lambda _: web.Response(status=next(answers, 204), headers={"Location": "/elsewhere"})
    await submitted(client)
    came = await there.until(3)
    assert len({one.id for one in came}) == 1
    assert {one.path for one in came} == {"/hooks"}

    async def delivered() -> bool:
        return [one["status"] for one in await log_of(client, made["webhook_id"])] == ["delivered"]

    await until(delivered)
    (line,) = await log_of(client, made["webhook_id"])
    assert line["attempts"] == 3
    assert [(one["status"], one["error"]) for one in line["log"]] == [
        (500, "status"),
        (302, "redirect"),
        (204, None),
    ]


@pytest.mark.sqlite
async def test_what_was_delivered_can_be_sent_again(client: Client, there: Receiver) -> None:
    made = await created(client, there.url)
    sent = (await client.post(f"{PATH}/{made['webhook_id']}/test")).json()
    await there.until(1)

    async def delivered() -> bool:
        return bool(
            (await client.get(f"{PATH}/deliveries", params={"status": "delivered"})).json()["deliveries"]
        )

    await until(delivered)
    again = await client.post(f"{PATH}/deliveries/{sent['delivery_id']}/replay")
    assert (again.status_code, again.json()["status"]) == (202, "waiting")
    came = await there.until(2)
    assert came[0].id == came[1].id == sent["delivery_id"]


async def test_gone_disables_at_once_with_a_notice_until_it_is_enabled(
    client: Client, there: Receiver
) -> None:
    made = await created(client, there.url)
    path = f"{PATH}/{made['webhook_id']}"
    there.answers(410)
    sent = (await client.post(f"{path}/test")).json()
    await until_disabled(client, path, "gone")
    assert (await client.get(f"{path}/deliveries")).json()["notice"]["reason"] == "gone"
    (notice,) = (await client.get("/api/v1/usage")).json()["notices"]
    assert (notice["webhook_id"], notice["kind"]) == (made["webhook_id"], "webhook_disabled")
    for refused in (f"{path}/test", f"{PATH}/deliveries/{sent['delivery_id']}/replay"):
        assert (await client.post(refused)).status_code == 409
    there.answers(204)
    assert (await client.patch(path, json={"enabled": True})).json()["notice"] is None
    assert (await client.post(f"{path}/test")).status_code == 202
    await there.until(2)
    assert (await client.get("/api/v1/usage")).json()["notices"] == []


async def until_disabled(client: Client, path: str, reason: str) -> None:
    async def disabled() -> bool:
        found = (await client.get(path)).json()
        return found["enabled"] is False and found["notice"]["reason"] == reason

    await until(disabled)


async def until_failing(client: Client, path: str) -> None:
    async def failing() -> bool:
        return (await client.get(path)).json()["failing_since"] is not None

    await until(failing)


@pytest.mark.sqlite
async def test_three_days_of_nothing_but_failure_disable(
    service: Service, client: Client, there: Receiver
) -> None:
    made = await created(client, there.url)
    path = f"{PATH}/{made['webhook_id']}"
    there.answers(500)
    await client.post(f"{path}/test")
    await until_failing(client, path)
    before = service.services.clock.now() - 3 * 86_400
    await service.db.write(
        lambda tx: tx.run("UPDATE webhooks SET failing_since = :before", {"before": before})
    )
    await until_disabled(client, path, "failing")
    assert [one["last_error"] for one in await log_of(client, made["webhook_id"])] == ["webhook_disabled"]


@pytest.mark.sqlite
async def test_the_last_attempt_of_a_single_event_disables(
    service: Service, client: Client, there: Receiver
) -> None:
    """Nothing else ever came: the first failure is a little younger than the delivery that it ends with."""
    made = await created(client, there.url)
    path = f"{PATH}/{made['webhook_id']}"
    there.answers(500)
    await client.post(f"{path}/test")
    await there.until(1)
    await until_failing(client, path)
    passed = {"passed": DELIVERY_SECONDS - LAST_SECONDS}

    async def days_pass(tx: Tx) -> None:
        await tx.run("UPDATE webhooks SET failing_since = failing_since - :passed", passed)
        await tx.run(
            "UPDATE webhook_deliveries SET event_at = event_at - :passed, created_at = created_at - :passed, "
            "expires_at = expires_at - :passed, next_at = 0",
            passed,
        )
        await tx.run("UPDATE webhook_lanes SET due_at = 0, paused_until = 0")

    await service.db.write(days_pass)
    await until_disabled(client, path, "failing")


@pytest.mark.sqlite
async def test_what_waits_for_its_receiver_is_not_late(
    service: Service, client: Client, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither behind slow answers nor in a rest that it asked for, by whoever takes the lane after it."""
    monkeypatch.setattr(lane_work, "QUICK_SECONDS", 0.0)  # every answer is a slow one
    counted = service.services.metrics.webhook_delay
    made = await created(client, there.url, "job.succeeded")

    def first_attempts() -> float:
        samples = [one for metric in counted.collect() for one in metric.samples]
        return next(one.value for one in samples if one.name.endswith("_count"))

    there.gate.clear()
    jobs = [await submitted(client, seed=seed) for seed in range(START + 2)]
    for job_id in jobs:
        await ended(service, job_id)
    await there.until(START)

    async def all_wait() -> bool:
        return len(await log_of(client, made["webhook_id"])) == len(jobs)

    await until(all_wait)
    there.gate.set()
    await there.until(len(jobs))
    assert first_attempts() == START

    there.answers(429, **{"Retry-After": "1800"})
    await ended(service, await submitted(client, seed=98))

    async def rests() -> bool:
        lane = await service.db.read(lambda tx: tx.one("SELECT holder, paused_until FROM webhook_lanes"))
        return lane is not None and lane["holder"] is None and lane["paused_until"] > 0

    await until(rests)
    await ended(service, await submitted(client, seed=99))

    async def is_over(tx: Tx) -> None:
        now = {"now": service.services.clock.now()}
        await tx.run("UPDATE webhook_lanes SET due_at = :now, paused_until = :now", now)
        await tx.run("UPDATE webhook_deliveries SET next_at = :now WHERE state = 'waiting'", now)

    await until(lambda: service.db.read(_waits_anew))
    await service.db.write(is_over)
    there.answers(204)
    await there.until(len(jobs) + 3)
    assert first_attempts() == START + 1, "the one that was asked to wait, and not the one behind it"
    await ended(service, await submitted(client, seed=100))
    await until(lambda: first_attempts() == START + 2)


async def _waits_anew(tx: Reader) -> bool:
    return await tx.one("SELECT 1 AS one FROM webhook_deliveries WHERE attempts = 0") is not None


@pytest.mark.sqlite
async def test_a_success_ends_the_days_of_failure(service: Service, client: Client, there: Receiver) -> None:
    made = await created(client, there.url)
    path = f"{PATH}/{made['webhook_id']}"
    before = service.services.clock.now() - 4 * 86_400
    await service.db.write(
        lambda tx: tx.run("UPDATE webhooks SET failing_since = :before", {"before": before})
    )
    await client.post(f"{path}/test")

    async def mended() -> bool:
        return (await client.get(path)).json()["failing_since"] is None

    await until(mended)
    assert (await client.get(path)).json()["enabled"] is True


@pytest.mark.sqlite
async def test_a_receiver_that_asks_to_wait_is_left_alone(
    service: Service, client: Client, there: Receiver
) -> None:
    made = await created(client, there.url)
    there.answers(429, **{"Retry-After": "1800"})
    await client.post(f"{PATH}/{made['webhook_id']}/test")
    await there.until(1)

    async def noted() -> bool:
        return [one["attempts"] for one in await log_of(client, made["webhook_id"])] == [1]

    await until(noted)
    now = service.services.clock.now()
    lane = await service.db.read(lambda tx: tx.one("SELECT due_at, holder FROM webhook_lanes"))
    (line,) = await log_of(client, made["webhook_id"])
    assert lane is not None
    assert now + 1700 < seconds_of(line["next_attempt_at"]) < now + 1900
    await client.post(f"{PATH}/{made['webhook_id']}/test")
    async with receiver() as other:
        second = await created(client, other.url)
        await client.post(f"{PATH}/{second['webhook_id']}/test")
        await other.until(1)  # who comes later has been served meanwhile
    assert len(there.came) == 1


async def test_a_receiver_that_hangs_holds_back_no_other(client: Client, there: Receiver) -> None:
    there.gate.clear()
    made = await created(client, there.url)
    for _ in range(12):
        await client.post(f"{PATH}/{made['webhook_id']}/test")
    await there.until(1)
    async with receiver() as other:
        second = await created(client, other.url)
        for _ in range(12):
            await client.post(f"{PATH}/{second['webhook_id']}/test")
        await other.until(12)
        await there.until(START)
    assert there.open_most <= START


@pytest.mark.sqlite
async def test_what_is_asked_for_is_held_to_its_rules(client: Client, there: Receiver) -> None:
    refused = [
        {"url": "ftp://example.com/"},
        {"url": "http://user:pass@example.com/"},
        {"url": there.url, "events": []},
        {"url": there.url, "events": ["job.eaten"]},
        {"url": there.url, "secret": "mine"},
    ]
    for body in refused:
        answer = await client.post(PATH, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR"), body
        assert "127.0.0.1" not in answer.text
    for _ in range(MOST):
        await created(client, there.url)
    assert (await client.post(PATH, json={"url": there.url})).status_code == 409
    webhook_id = (await client.get(PATH)).json()["webhooks"][0]["webhook_id"]
    assert (await client.delete(f"{PATH}/{webhook_id}")).status_code == 204
    assert (await client.get(f"{PATH}/{webhook_id}")).status_code == 404


@pytest.mark.sqlite
async def test_a_deleted_webhook_is_seen_no_more_and_goes_with_its_log(
    service: Service, client: Client, there: Receiver
) -> None:
    made = await created(client, there.url)
    sent = (await client.post(f"{PATH}/{made['webhook_id']}/test")).json()["delivery_id"]
    await there.until(1)
    assert (await client.delete(f"{PATH}/{made['webhook_id']}")).status_code == 204
    assert (await client.get(PATH)).json()["webhooks"] == []
    assert (await client.get(f"{PATH}/deliveries")).json()["deliveries"] == []
    for method, path in (
        ("GET", f"{PATH}/{made['webhook_id']}"),
        ("GET", f"{PATH}/{made['webhook_id']}/deliveries"),
        ("PATCH", f"{PATH}/{made['webhook_id']}"),
        ("DELETE", f"{PATH}/{made['webhook_id']}"),
        ("POST", f"{PATH}/{made['webhook_id']}/test"),
        ("POST", f"{PATH}/{made['webhook_id']}/rotate"),
        ("POST", f"{PATH}/deliveries/{sent}/replay"),
    ):
        body = {"enabled": True} if method == "PATCH" else None
        assert (await client.request(method, path, json=body)).status_code == 404, (method, path)
    await service.worker._upkeep.give_up_deliveries()
    for table in ("webhooks", "webhook_deliveries", "webhook_lanes"):
        assert await service.db.read(lambda tx: tx.all(f"SELECT * FROM {table}")) == []  # noqa: B023


@pytest.mark.sqlite
async def test_what_upkeep_ends_is_counted(service: Service, client: Client, there: Receiver) -> None:
    there.answers(429, **{"Retry-After": "1800"})
    made = await created(client, there.url)
    await client.post(f"{PATH}/{made['webhook_id']}/test")

    async def noted() -> bool:
        return [one["attempts"] for one in await log_of(client, made["webhook_id"])] == [1]

    await until(noted)
    await service.db.write(lambda tx: tx.run("UPDATE webhook_deliveries SET expires_at = 1"))
    failed = service.services.metrics.webhook_deliveries.labels("failed")
    before = failed._value.get()
    assert await service.worker._upkeep.give_up_deliveries() == 1
    assert failed._value.get() == before + 1


async def test_a_job_that_is_run_again_tells_the_same_address(
    service: Service, client: Client, there: Receiver
) -> None:
    first = await submitted(client, webhook_url=there.url)
    await ended(service, first)
    again = (await client.post(f"/api/v1/jobs/{first}/retry")).json()["job_id"]
    came = await there.until(4)
    assert {one.data["job_id"] for one in came} == {first, again}


@pytest.mark.sqlite
async def test_the_log_is_paged(client: Client, there: Receiver) -> None:
    made = await created(client, there.url)
    sent = [(await client.post(f"{PATH}/{made['webhook_id']}/test")).json()["delivery_id"] for _ in range(5)]
    found, cursor = [], ""
    while True:
        params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await client.get(f"{PATH}/{made['webhook_id']}/deliveries", params=params)).json()
        found += [one["delivery_id"] for one in page["deliveries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == sent[::-1]


@pytest.mark.sqlite
async def test_another_key_of_the_service_costs_no_delivery(
    tmp_path: Path, sim: Simulator, there: Receiver
) -> None:
    """Whoever has the right key again sends what waited."""
    given: dict[str, Any] = {"webhook_allow_private": True}
    right, wrong = "a" * 16 + "b" * 17, "c" * 16 + "d" * 17
    async with (
        running(tmp_path, sim.url, secret_key=right, **given) as first,
        connected(first.app) as client,
    ):
        made = await created(client, there.url)
    async with (
        running(tmp_path, sim.url, secret_key=wrong, **given) as other,
        connected(other.app) as client,
    ):
        await client.post(f"{PATH}/{made['webhook_id']}/test")

        async def told() -> bool:
            (line,) = await log_of(client, made["webhook_id"])
            return (line["last_error"], line["attempts"]) == ("secret_unreadable", 0)

        await until(told)
        held_back = other.services.metrics.webhook_deliveries.labels("unreadable")
        assert held_back._value.get() >= 1, "ComfyWebhooksUnreadable asks for it"
    assert there.came == []
    async with running(tmp_path, sim.url, secret_key=right, **given) as first:
        await first.db.write(lambda tx: tx.run("UPDATE webhook_lanes SET due_at = 1, paused_until = 0"))
        await first.db.write(lambda tx: tx.run("UPDATE webhook_deliveries SET next_at = 1"))
        (came,) = await there.until(1)
        came.verified(made["secret"])


@pytest.mark.sqlite
async def test_one_rotation_ends_what_another_key_began(
    tmp_path: Path, sim: Simulator, there: Receiver
) -> None:
    """The secret of before is still to sign for a day, and cannot."""
    given: dict[str, Any] = {"webhook_allow_private": True}
    async with (
        running(tmp_path, sim.url, secret_key="a" * 16 + "b" * 17, **given) as first,
        connected(first.app) as client,
    ):
        made = await created(client, there.url)
    async with (
        running(tmp_path, sim.url, secret_key="c" * 16 + "d" * 17, **given) as other,
        connected(other.app) as client,
    ):
        rotated = await client.post(f"{PATH}/{made['webhook_id']}/rotate")
        await client.post(f"{PATH}/{made['webhook_id']}/test")
        (came,) = await there.until(1)
        came.verified(rotated.json()["secret"])
