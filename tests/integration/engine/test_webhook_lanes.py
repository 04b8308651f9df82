"""What a process holds: receivers that cannot be served delay no other, and nothing is held that nobody works."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.lanes import TAKEN, Lanes, lanes
from tests.support.rows import add_accounts
from tests.support.stack import until

from comfy_api_service.db import deliveries, dispatch, webhooks
from comfy_api_service.db.base import CommitUnknown
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.principal import Actor
from comfy_api_service.domain.redelivery import FAILING
from comfy_api_service.domain.webhook import Reply, Trouble
from comfy_api_service.services import deliverer, held, lane_work
from comfy_api_service.services.held import Held
from comfy_api_service.services.lane_work import START, LaneWork
from comfy_api_service.services.webhooks import Changes, Webhooks

pytestmark = pytest.mark.sqlite
BAD = Reply(500, Trouble.STATUS, 0.01)
ME = Actor(None, "me", None)


@pytest.fixture
def short_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HOLD_SECONDS", 0.3)
    monkeypatch.setattr(deliverer, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(deliverer, "POLL_SECONDS", 0.05)


@pytest.fixture
def nobody_asks_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "POLL_SECONDS", 60.0)
    monkeypatch.setattr(deliverer, "POLL_MOST", 60.0)


async def busy_beside(on: Lanes) -> None:
    """A lane that is worked on and on, so that this process has something to renew."""
    never = asyncio.Event()
    on.out.answer = lambda url: never if "busy" in url else TAKEN
    await on.put(await on.webhook("busy"))
    await until(lambda: on.out.open == 1)


@pytest.mark.usefixtures("short_holds")
async def test_a_lane_whose_work_fails_is_worked_again(tmp_path: Path) -> None:
    class Faulty(LaneWork):
        failed = False

        async def run(self) -> float | None:
            if len(on.tools.held.receivers) == 2 and not Faulty.failed:
                Faulty.failed = True
                raise ValueError("once")
            return await super().run()

    async with lanes(tmp_path, lane_work=Faulty) as on:
        await busy_beside(on)
        await on.put(await on.webhook("other"))
        await until(lambda: "https://other.example/" in on.out.asked, 10.0)
        assert Faulty.failed


@pytest.mark.usefixtures("short_holds")
async def test_a_lane_whose_claim_nobody_heard_of_is_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path) as on:
        await busy_beside(on)
        write = on.db.write
        lost: list[Any] = []

        async def losing(function: Any, **options: Any) -> Any:
            found = await write(function, **options)
            if isinstance(found, list) and found and not lost:
                lost.append(found)
                raise CommitUnknown("lost as it committed")
            return found

        monkeypatch.setattr(on.db, "write", losing)
        await on.put(await on.webhook("other"))
        await until(lambda: "https://other.example/" in on.out.asked, 10.0)
        assert lost


async def test_a_moment_without_a_database_ends_no_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_work, "AGAIN_SECONDS", 0.01)
    ensure, away = webhooks.ensure_account_secret, [True]

    async def absent(*args: Any) -> None:
        if away.pop() if away else False:
            raise Unavailable("The database cannot be used now.")
        await ensure(*args)

    monkeypatch.setattr(webhooks, "ensure_account_secret", absent)
    async with lanes(tmp_path) as on:
        await on.put("own")
        await until(lambda: on.out.asked == ["https://own.example/"], 5.0)
        assert not away


@pytest.mark.usefixtures("nobody_asks_by_the_clock")
async def test_an_account_without_room_waits_by_itself_and_is_seen_to(tmp_path: Path) -> None:
    """Its lanes stay as they are, due as long as they have been, until a place is given back."""
    gate = asyncio.Event()
    async with lanes(tmp_path, held=Held(8, each=4)) as on:
        await add_accounts(on.db, "acc_flood")
        on.out.answer = lambda url: gate if "flood" in url else TAKEN
        due = on.clock.now() - 30.0
        for number in range(8):
            await on.put(f"flood{number}", account_id="acc_flood", at=due)
        await until(lambda: on.out.open == 4)
        for _ in range(3):
            other = await on.webhook("good")
            asked = len(on.out.asked)
            await on.put(other)
            await until(lambda: len(on.out.asked) > asked)  # noqa: B023
        waiting = await on.rows(
            "SELECT due_at FROM webhook_lanes WHERE account_id = 'acc_flood' AND holder IS NULL"
        )
        assert [row["due_at"] for row in waiting] == [due] * 4
        assert (await on.db.read(lambda tx: dispatch.backlog(tx, on.clock.now()))).oldest_at == due
        gate.set()
        await until(lambda: sum("flood" in url for url in on.out.asked) == 8)


@pytest.mark.usefixtures("nobody_asks_by_the_clock")
async def test_who_was_served_for_a_while_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(held, "FOR_MORE", 0.0)
    async with lanes(tmp_path, held=Held(8, each=2)) as on:
        gates = [asyncio.Event() for _ in range(3)]
        on.out.answer = lambda url: gates[int(url[len("https://r") :][0])]
        for number in range(3):
            await on.put(f"r{number}", 3)
        await until(lambda: on.out.open == 2)
        worked = {url[len("https://r") :][0] for url in on.out.asked}
        (third,) = {"0", "1", "2"} - worked
        gates[int(min(worked))].set()
        await until(lambda: any(url.startswith(f"https://r{third}") for url in on.out.asked))
        assert sum(url.startswith(f"https://r{min(worked)}") for url in on.out.asked) < 3


async def test_receivers_that_keep_failing_have_few_places_also_when_they_begin_to(tmp_path: Path) -> None:
    async with lanes(tmp_path, held=Held(20, each=20, failing=2)) as on:
        gate = asyncio.Event()
        on.out.answer = lambda url: BAD if on.out.asked.count(url) <= START else gate
        for number in range(6):
            await on.put(f"bad{number}", 8)

        async def settled() -> bool:
            rows = await on.rows("SELECT holder FROM webhook_lanes WHERE failures >= 3")
            return len(rows) == 6 and sum(row["holder"] is not None for row in rows) == 2

        await until(settled)
        await on.put(await on.webhook("good"))
        await until(lambda: "https://good.example/" in on.out.asked)
        assert on.out.open <= 2 + 1


async def test_nothing_more_is_sent_to_who_is_gone(tmp_path: Path) -> None:
    async with lanes(tmp_path) as on:
        webhook = await on.webhook("a")
        on.out.answer = lambda _: Reply(410, Trouble.GONE, 0.01)
        await on.put(webhook, 40)

        async def given_up() -> bool:
            rows = await on.rows("SELECT id FROM webhook_deliveries WHERE state = 'waiting'")
            return not rows

        await until(given_up)
        assert len(on.out.asked) <= START


@pytest.mark.parametrize("change", ["url", "disabled", "deleted"])
async def test_what_was_read_ahead_is_not_sent_after_a_change(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_work, "LOOK_SECONDS", 0.1)
    gate = asyncio.Event()
    async with lanes(tmp_path) as on:
        webhook = await on.webhook("old")
        on.out.answer = lambda url: gate if "old" in url else TAKEN
        await on.put(webhook, 12)
        await until(lambda: on.out.open == START)
        service = Webhooks(on.db, on.clock, on.tools.sealer, allow_private=False)
        if change == "deleted":
            await service.delete(LOCAL_ACCOUNT, webhook.id, ME)
        else:
            changes = Changes(url="https://new.example/") if change == "url" else Changes(enabled=False)
            await service.change(LOCAL_ACCOUNT, webhook.id, changes, ME)
        told = time.monotonic()
        await until(lambda: time.monotonic() - told > 0.1)  # what was read before counts no more
        gate.set()

        async def over() -> bool:
            rows = await on.rows("SELECT id FROM webhook_deliveries WHERE state = 'waiting'")
            return not rows and not on.tools.held.receivers

        await until(over)
        assert on.out.asked.count("https://old.example/") == START
        assert on.out.asked.count("https://new.example/") == (12 - START if change == "url" else 0)


async def test_own_faults_are_not_the_receivers(tmp_path: Path) -> None:
    def describe(*_: Any) -> Any:
        raise KeyError("a fault of this service")

    with structlog.testing.capture_logs():  # a trace each costs half a second
        await _own_faults(tmp_path, describe)


async def _own_faults(folder: Path, describe: Any) -> None:
    async with lanes(folder, describe=describe) as on:
        webhook = await on.webhook("a")
        long_ago = on.clock.now() - 4 * 86_400.0
        await on.db.write(
            lambda tx: tx.run("UPDATE webhooks SET failing_since = :since", {"since": long_ago})
        )
        await on.put(webhook, 8)

        async def noted() -> bool:
            rows = await on.rows("SELECT id FROM webhook_deliveries WHERE last_error = 'internal'")
            return len(rows) == 8

        await until(noted)
        (lane,) = await on.rows("SELECT failures, paused_until FROM webhook_lanes")
        assert (lane["failures"], lane["paused_until"]) == (0, 0.0)
        assert (await on.rows("SELECT disabled_at FROM webhooks"))[0]["disabled_at"] is None
        for row in await on.rows("SELECT state, attempts, next_at FROM webhook_deliveries"):
            assert (row["state"], row["attempts"]) == ("waiting", 0)
            assert row["next_at"] > on.clock.now()


async def test_one_blip_brings_no_rest(tmp_path: Path) -> None:
    async with lanes(tmp_path) as on:
        webhook = await on.webhook("a")
        blip, never = asyncio.Event(), asyncio.Event()

        async def post(url: str, *_: Any, **__: Any) -> Reply:
            on.out.asked.append(url)
            if len(on.out.asked) <= 20:
                return TAKEN
            await (never if blip.is_set() else blip).wait()
            return BAD

        on.out.post = post  # type: ignore[method-assign]
        await on.put(webhook, 60)
        await until(lambda: len(on.out.asked) > 20 + 8)
        blip.set()

        async def failing() -> bool:
            (lane,) = await on.rows("SELECT failures FROM webhook_lanes")
            return bool(lane["failures"] >= FAILING)

        await until(failing)
        (lane,) = await on.rows("SELECT failures, paused_until FROM webhook_lanes")
        assert lane["failures"] == FAILING
        assert lane["paused_until"] <= on.clock.now()


async def test_a_replay_that_is_asked_for_during_an_attempt_is_sent(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with lanes(tmp_path) as on:
        webhook = await on.webhook("a")
        on.out.answer = lambda _: gate if len(on.out.asked) == 1 else TAKEN
        (sent,) = await on.put(webhook)
        await until(lambda: on.out.open == 1)
        service = Webhooks(on.db, on.clock, on.tools.sealer, allow_private=False)
        await service.replay(LOCAL_ACCOUNT, sent.id)
        gate.set()
        await until(lambda: len(on.out.asked) == 2)

        async def delivered() -> bool:
            found = await on.db.read(lambda tx: deliveries.get(tx, LOCAL_ACCOUNT, sent.id))
            return found is not None and (found.state, found.attempts) == ("delivered", 2)

        await until(delivered)


async def test_a_replayed_delivery_begins_its_pauses_anew(tmp_path: Path) -> None:
    async with lanes(tmp_path) as on:
        webhook = await on.webhook("a")
        on.out.answer = lambda _: Reply(503, Trouble.STATUS, 0.01)
        (sent,) = await on.put(webhook)
        await until(lambda: len(on.out.asked) == 1)

        async def noted(attempts: int) -> bool:
            found = await on.db.read(lambda tx: deliveries.get(tx, LOCAL_ACCOUNT, sent.id))
            return found is not None and found.attempts == attempts

        await until(lambda: noted(1))
        await on.db.write(lambda tx: tx.run("UPDATE webhook_deliveries SET attempts = 24, state = 'failed'"))
        service = Webhooks(on.db, on.clock, on.tools.sealer, allow_private=False, nudge=on.deliverer.look)
        await service.replay(LOCAL_ACCOUNT, sent.id)
        await until(lambda: noted(25))
        again = await on.db.read(lambda tx: deliveries.get(tx, LOCAL_ACCOUNT, sent.id))
        assert again is not None
        assert again.next_at - on.clock.now() < 2 * on.tools.first_pause


async def test_who_stops_begins_nothing_that_it_was_just_claiming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lanes(tmp_path) as on:
        write, claiming, go_on = on.db.write, asyncio.Event(), asyncio.Event()

        async def slow(function: Any, **options: Any) -> Any:
            if on.deliverer._claiming.locked() and not claiming.is_set():
                claiming.set()
                await go_on.wait()
            return await write(function, **options)

        monkeypatch.setattr(on.db, "write", slow)
        await on.put(await on.webhook("a"))
        await claiming.wait()
        stopping = asyncio.create_task(on.deliverer.drain(5.0))
        await asyncio.wait([stopping], timeout=0.1)
        go_on.set()
        await stopping
        await until(lambda: not on.deliverer._claiming.locked() and not on.tools.held.receivers)
        assert on.out.asked == []
        assert [row["holder"] for row in await on.rows("SELECT holder FROM webhook_lanes")] == [None]
