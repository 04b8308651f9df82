"""What only a carrier between processes can get wrong: loss, strangers, newcomers, back-pressure."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.support.bus import (
    ACCOUNT,
    JOB,
    LIMIT,
    OTHER,
    Bus,
    bus,
    event,
    heard,
    preview,
    progress,
    told_to_look,
)
from tests.support.leaping import LeapingLoop, leaping_loop
from tests.support.proxy import Gate, passing_on
from tests.support.stack import until
from tests.support.valkey import Valkey

from comfy_api_service.domain.events import EventType, Preview, Progress
from comfy_api_service.redis_link import link
from comfy_api_service.signals import base, outbox, redis, wire
from comfy_api_service.signals.base import Latest, Note
from comfy_api_service.signals.topics import Topics

TOPICS = Topics(0)
SAID = Progress(40, 1, 20, "3", "KSampler")


@pytest.fixture
async def here(own_valkey: Valkey) -> AsyncIterator[Bus]:
    async with bus(own_valkey.url) as one:
        yield one


@pytest.fixture
async def there(own_valkey: Valkey) -> AsyncIterator[Bus]:
    async with bus(own_valkey.url) as one:
        yield one


# --- losing the server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_events_cross_again_after_an_outage_and_who_missed_some_looks(
    here: Bus, there: Bus, own_valkey: Valkey, how: str
) -> None:
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        getattr(own_valkey, how)()
        await until(lambda: not here.link.up)
        await there.away()
        here.signals.publish(event(2))
        assert here.figure("comfyui_redis_fallbacks_total", use="event") == 1
        (own_valkey.start if how == "kill" else own_valkey.go_on)()
        await here.connected()
        await there.connected()
        await told_to_look(mailbox)
        here.signals.publish(event(3))
        assert await heard(mailbox) == event(3)


async def test_a_listener_here_is_told_while_the_server_is_away(here: Bus, own_valkey: Valkey) -> None:
    own_valkey.kill()
    await here.away()
    cancels: list[str] = []
    here.signals.on_cancel(cancels.append)
    seen = here.signals.wakes
    with here.signals.listen_job(JOB, previews=True) as mailbox:
        for note in (event(2), progress(40), preview()):
            here.signals.publish(note)
            assert await heard(mailbox) == note
    here.signals.wake()
    here.signals.ask_cancel(JOB)
    assert here.signals.wakes == seen + 1
    assert cancels == [JOB]
    assert await here.signals.latest([JOB]) == {JOB: Latest(1, SAID, has_preview=True)}
    assert await here.signals.preview(JOB, 1) == preview().body


async def test_polls_are_closer_while_wake_ups_may_be_lost(here: Bus, own_valkey: Valkey) -> None:
    assert here.signals.poll_seconds == 1
    own_valkey.kill()
    await here.away()
    assert here.signals.poll_seconds == 0.25
    own_valkey.start()
    await here.connected()
    assert here.signals.poll_seconds == 1


async def test_workers_and_pool_look_when_the_server_is_back(there: Bus, own_valkey: Valkey) -> None:
    own_valkey.kill()
    await there.away()
    seen, changed = there.signals.wakes, asyncio.Event()
    there.signals.on_pool_change(changed.set)
    own_valkey.start()
    await until(lambda: there.signals.wakes > seen)
    async with asyncio.timeout(LIMIT):
        await changed.wait()


async def test_what_was_heard_before_an_outage_is_not_told_after_it(
    here: Bus, there: Bus, own_valkey: Valkey
) -> None:
    here.signals.publish(progress(40))

    async def known() -> bool:
        return bool(await there.signals.latest([JOB]))

    await until(known)
    own_valkey.restart()
    await there.away()
    await there.connected()
    assert not await known()


async def test_an_emptied_server_loses_what_is_kept_and_nothing_else(
    here: Bus, there: Bus, own_valkey: Valkey
) -> None:
    here.signals.publish(progress(40))
    await until(lambda: bool(own_valkey.kept()))
    own_valkey.command("FLUSHALL")
    assert there.signals.connected
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        here.signals.publish(event(2))
        assert await heard(mailbox) == event(2)
    async with bus(own_valkey.url) as newcomer:
        assert await newcomer.signals.latest([JOB]) == {}


async def test_a_subscription_that_is_cut_begins_anew_and_listeners_look(
    here: Bus, there: Bus, own_valkey: Valkey
) -> None:
    with there.signals.listen_account(ACCOUNT, previews=False) as mailbox:
        assert own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub") == 2
        await told_to_look(mailbox)
        await there.connected()
        await here.connected()
        here.signals.publish(event(2))
        assert await heard(mailbox) == event(2)


async def test_what_one_end_could_not_say_the_others_look_up(
    here: Bus, there: Bus, own_valkey: Valkey
) -> None:
    (number,) = await here.link.ask("ping", ("CLIENT", "ID"))
    assert isinstance(number, int)
    await until(lambda: there.signals._looking is None)
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        seen = there.signals.wakes
        own_valkey.command("CLIENT", "KILL", "ID", number)
        await until(lambda: not here.link.up)
        here.signals.publish(event(2))
        await told_to_look(mailbox)
        await until(lambda: there.signals.wakes > seen)
        assert not mailbox._events


async def test_connections_that_are_cut_without_a_word_are_noticed(own_valkey: Valkey) -> None:
    gate = Gate()
    async with (
        passing_on(lambda: own_valkey, gate=gate) as port,
        bus(f"redis://127.0.0.1:{port}") as there,
        bus(own_valkey.url) as here,
    ):
        with there.signals.listen_job(JOB, previews=False) as mailbox:
            gate.shut()
            await until(lambda: not there.subscribed())
            await there.connected()
            here.signals.publish(event(2))
            assert await heard(mailbox) == event(2)


async def test_it_starts_without_a_server_and_finds_it_later(own_valkey: Valkey) -> None:
    own_valkey.kill()
    async with bus(own_valkey.url, connected=False) as one:
        one.signals.wake()
        one.signals.publish(event(2))
        assert not one.signals.connected
        assert one.figure("comfyui_redis_state", state="disconnected") == 1
        own_valkey.start()
        await one.connected()
        assert one.figure("comfyui_redis_state", state="connected") == 1
        assert one.figure("comfyui_redis_state", state="disconnected") == 0


async def test_a_hung_server_is_asked_once_and_then_nobody_waits_for_it(
    here: Bus, own_valkey: Valkey
) -> None:
    own_valkey.pause()
    await asyncio.gather(*(here.signals.latest([f"job_{n}"]) for n in range(20)))
    assert not here.link.up
    assert here.figure("comfyui_redis_requests_total", use="read", status="failed") == 20
    for n in range(20):
        with pytest.raises(StopIteration):  # it ends without ever having waited
            here.signals.latest([f"job_{n}"]).send(None)
    assert here.figure("comfyui_redis_requests_total", use="read", status="skipped") == 20
    own_valkey.go_on()
    await here.connected()
    assert here.figure("comfyui_redis_fallbacks_total", use="read") == 40


def test_nobody_waits_for_a_hung_server_longer_than_is_promised(own_valkey: Valkey) -> None:
    async def waited() -> float:
        async with bus(own_valkey.url) as one:
            own_valkey.pause()
            loop = leaping_loop()
            with loop.leaping():
                began = loop.time()
                await asyncio.gather(*(one.signals.latest([f"job_{n}"]) for n in range(20)))
                return loop.time() - began

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        assert 0.0 < runner.run(waited()) < 0.2501


# --- strangers -----------------------------------------------------------------------------------------------


def note_items(*items: object) -> bytes:
    return orjson.dumps([1, "somebody", list(items)])


HOSTILE = [
    b"",
    b"\xff\xfe",
    b"not json",
    b"[" * 100_000,
    b'"text"',
    b"{}",
    b"[]",
    b'[2,"somebody",[["wake"]]]',
    b"[1,2,3]",
    orjson.dumps([1, "somebody", "x" * wire.MOST_BYTES]),
    note_items("wake", 1, None, [], [[]], ["nonsense"], ["wake", 1], {"wake": 1}),
    note_items(["event"], ["event", JOB], ["event", JOB, ACCOUNT, 1], ["progress", JOB, ACCOUNT, 1]),
    note_items(["event", JOB, ACCOUNT, "1", 2, "running", "running", 1.0, {}]),
    note_items(["event", JOB, ACCOUNT, True, 2, "running", "running", 1.0, {}]),
    note_items(["event", JOB, ACCOUNT, 1, -2, "running", "running", 1.0, {}]),
    note_items(["event", JOB, ACCOUNT, 1, 2, "progress", "running", 1.0, {}]),
    note_items(["event", JOB, ACCOUNT, 1, 2, "running", "strange", 1.0, {}]),
    note_items(["event", JOB, ACCOUNT, 1, 2, "running", "running", 1e300, {}]),
    note_items(["event", JOB, ACCOUNT, 1, 2, "running", "running", 1.0, []]),
    note_items(["event", JOB + "\n", ACCOUNT, 1, 2, "running", "running", 1.0, {}]),
    note_items(["event", "x" * 65, ACCOUNT, 1, 2, "running", "running", 1.0, {}]),
    note_items(["progress", JOB, ACCOUNT, 1, 101, 1, 2, "3", "x"]),
    note_items(["progress", JOB, ACCOUNT, 1, None, 1, 2, "3", "x"]),
    note_items(["progress", JOB, ACCOUNT, 1, 50, 1.5, 2, "3", "x"]),
    note_items(["progress", JOB, ACCOUNT, 1, 50, 1, 2, 3, "x"]),
    note_items(["progress", JOB, ACCOUNT, 10**9, 50, 1, 2, "3", "x"]),
    note_items(["cancel", None], ["cancel", ""], ["look", JOB, None], ["pictured", JOB, ACCOUNT, -1]),
]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("channel", [TOPICS.workers, TOPICS.listeners])
async def test_what_is_not_understood_is_ignored(shared_valkey: Valkey, payload: bytes, channel: str) -> None:
    async with bus(shared_valkey.url) as there:
        cancels: list[str] = []
        there.signals.on_cancel(cancels.append)
        seen = there.signals.wakes
        with there.signals.listen_account(ACCOUNT, previews=True) as mailbox:
            shared_valkey.command("PUBLISH", channel, payload)
            shared_valkey.command(
                "PUBLISH", channel, note_items(["progress", OTHER, ACCOUNT, 1, 1, 1, 2, "", ""])
            )
            assert (await heard(mailbox)).job_id == OTHER
            assert there.figure("comfyui_redis_messages_total", outcome="ignored") >= 1
        assert there.signals.wakes == seen
        assert cancels == []
        assert there.signals.connected


async def test_what_is_understood_is_taken_from_a_newer_version_too(shared_valkey: Valkey) -> None:
    async with bus(shared_valkey.url) as there:
        seen = there.signals.wakes
        shared_valkey.command("PUBLISH", TOPICS.workers, note_items(["of a newer version", 1], ["wake"]))
        await until(lambda: there.signals.wakes == seen + 1)


@pytest.mark.parametrize(
    "kept",
    [b"", b"nonsense", b"99999999 image/jpeg\nx", b"1 text/html\n<script>", b"1 image/jpeg", b"\xff 1\n"],
)
async def test_what_is_kept_is_checked_like_what_is_sent(shared_valkey: Valkey, kept: bytes) -> None:
    shared_valkey.command("SET", TOPICS.progress_key(JOB), kept)
    shared_valkey.command("SET", TOPICS.preview_key(JOB), kept)
    async with bus(shared_valkey.url) as newcomer:
        latest = await newcomer.signals.latest([JOB])
        assert latest.get(JOB) is None or latest[JOB].progress is None
        preview = await newcomer.signals.preview(JOB, 1)
        assert preview is None or preview.picture == b""


async def test_a_key_of_another_kind_does_no_harm(shared_valkey: Valkey) -> None:
    shared_valkey.command("RPUSH", TOPICS.progress_key(JOB), "x")
    shared_valkey.command("RPUSH", TOPICS.preview_key(JOB), "x")
    async with bus(shared_valkey.url) as newcomer:
        assert await newcomer.signals.latest([JOB]) == {}
        assert await newcomer.signals.preview(JOB, 1) is None
        assert newcomer.signals.connected


async def test_databases_of_one_server_do_not_hear_each_other(own_valkey: Valkey) -> None:
    async with bus(own_valkey.url) as one, bus(f"{own_valkey.url}?db=3") as other:
        with other.signals.listen_job(JOB, previews=True) as mailbox:
            one.signals.publish(progress(40))
            await until(lambda: bool(own_valkey.kept()))
            other.signals.publish(event(2))
            assert await heard(mailbox) == event(2)
        assert await other.signals.latest([JOB]) == {}


# --- newcomers and other processes -----------------------------------------------------------------------------


async def test_a_process_that_comes_later_knows_how_far_jobs_are(shared_valkey: Valkey) -> None:
    async with bus(shared_valkey.url) as here:
        here.signals.publish(progress(40))
        here.signals.publish(preview(b"kept"))
        await until(lambda: len(shared_valkey.kept()) == 2)
        assert all(key.startswith("cui:") for key in shared_valkey.kept())
        assert all(0 < shared_valkey.command("TTL", key) <= 900 for key in shared_valkey.kept())
        async with bus(shared_valkey.url) as newcomer:
            assert await newcomer.signals.latest([JOB, OTHER]) == {JOB: Latest(1, SAID, has_preview=True)}
            assert await newcomer.signals.preview(JOB, 1) == Preview("image/jpeg", b"kept")
            assert await newcomer.signals.preview(JOB, 2) is None
        here.signals.publish(event(4, EventType.DONE))
        await until(lambda: not shared_valkey.kept())


async def test_a_newcomer_is_not_told_what_another_attempt_drew(shared_valkey: Valkey) -> None:
    shared_valkey.command("SET", TOPICS.progress_key(JOB), wire.item(progress(40, attempt=1)))
    shared_valkey.command("SET", TOPICS.preview_key(JOB), wire.picture(2, Preview("image/png", b"x")))
    async with bus(shared_valkey.url) as newcomer:
        assert await newcomer.signals.latest([JOB]) == {JOB: Latest(2, None, has_preview=True)}
        shared_valkey.command("SET", TOPICS.progress_key(JOB), wire.item(progress(40, attempt=3)))
        assert await newcomer.signals.latest([JOB]) == {JOB: Latest(3, SAID, has_preview=False)}


SPEAKER = """
import asyncio, sys
from tests.support.bus import bus, event, progress, JOB
from comfy_api_service.domain.events import EventType
async def main():
    async with bus(sys.argv[1]) as one:
        one.signals.wake()
        one.signals.ask_cancel(JOB)
        one.signals.publish(event(2))
        one.signals.publish(progress(40))
        one.signals.publish(event(3, EventType.DONE))
asyncio.run(main())
"""


async def test_another_process_is_heard_to_its_last_word(shared_valkey: Valkey) -> None:
    async with bus(shared_valkey.url) as there:
        cancels: list[str] = []
        there.signals.on_cancel(cancels.append)
        seen = there.signals.wakes
        with there.signals.listen_job(JOB, previews=True) as mailbox:
            ended = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", SPEAKER, shared_valkey.url], check=False
            )
            assert ended.returncode == 0
            assert await heard(mailbox) == event(2)
            assert (await heard(mailbox)).body == progress(40).body
            assert (await heard(mailbox)).body == event(3, EventType.DONE).body
        await until(lambda: cancels == [JOB] and there.signals.wakes > seen)


async def test_nobody_is_told_twice_by_what_comes_back(here: Bus, there: Bus) -> None:
    with here.signals.listen_job(JOB, previews=True) as mailbox:
        here.signals.publish(event(2))
        here.signals.publish(progress(40))
        assert [await heard(mailbox), await heard(mailbox)] == [event(2), progress(40)]
        await until(lambda: not here.signals._outbox)
        there.signals.publish(event(3))
        assert await heard(mailbox) == event(3)


async def test_there_is_one_subscription_and_one_other_connection_a_process(own_valkey: Valkey) -> None:
    async with bus(own_valkey.url) as one:
        with contextlib.ExitStack() as listeners:
            for n in range(50):
                listeners.enter_context(one.signals.listen_job(f"job_{n}", previews=True))
            one.signals.publish(progress(40))
            await asyncio.gather(*(one.signals.latest([f"job_{n}"]) for n in range(50)))
            clients = own_valkey.command("CLIENT", "LIST").decode().splitlines()
    assert len(clients) == 3  # the third asks for this list
    assert sum(" sub=2 " in line for line in clients) == 1


async def test_a_process_without_callers_hears_orders_and_no_progress(here: Bus, own_valkey: Valkey) -> None:
    """Each worker would hear every other's, a product of their numbers."""
    canceled: list[str] = []
    changes: list[None] = []
    async with bus(own_valkey.url, listens=False) as worker:
        worker.signals.on_cancel(canceled.append)
        worker.signals.on_pool_change(lambda: changes.append(None))
        before, wakes = len(changes), worker.signals.wakes
        here.signals.publish(progress(40))
        here.signals.publish(event(2))
        here.signals.wake()
        here.signals.pool_changed()
        here.signals.ask_cancel(JOB)
        await until(lambda: canceled == [JOB] and len(changes) > before and worker.signals.wakes > wakes)
        assert worker.figure("comfyui_redis_messages_total", outcome="received") == 3
        assert own_valkey.command("PUBSUB", "NUMSUB", TOPICS.listeners)[-1] == 1
        with here.signals.listen_job(JOB, previews=True) as mailbox:
            worker.signals.publish(event(3))
            assert await heard(mailbox) == event(3)


async def test_progress_waits_for_that_of_others_and_nothing_else_does(
    here: Bus, there: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "GATHERED_SECONDS", 3_600.0)
    commands = here.link.ask
    exchanges: list[int] = []

    async def counted(use: str, *given: Any) -> Any:
        exchanges.append(len(given))
        return await commands(use, *given)

    monkeypatch.setattr(there.link, "ask", counted)
    with here.signals.listen_job(JOB, previews=True) as mailbox:
        for percent in (40, 41, 42):
            there.signals.publish(progress(percent))
            await asyncio.sleep(0)
        there.signals.publish(Note(OTHER, ACCOUNT, 1, SAID))
        assert exchanges == []
        there.signals.publish(event(2, EventType.DONE))
        assert [await heard(mailbox), await heard(mailbox)] == [progress(42), event(2, EventType.DONE)]
        assert len(exchanges) == 1
    for say in (there.signals.wake, there.signals.pool_changed, lambda: there.signals.ask_cancel(JOB)):
        before = len(exchanges)
        say()
        await until(lambda: len(exchanges) > before)  # noqa: B023


# --- back-pressure ---------------------------------------------------------------------------------------------


async def test_of_previews_at_most_four_a_second_are_sent_and_too_large_ones_never(
    here: Bus, there: Bus, own_valkey: Valkey
) -> None:
    here.signals.publish(preview(bytes(wire.PICTURE_BYTES + 1), job=OTHER))
    for n in range(20):
        here.signals.publish(preview(b"%d" % n))
    await until(lambda: bool(own_valkey.kept()))
    assert own_valkey.kept() == {TOPICS.preview_key(JOB)}
    assert here.figure("comfyui_redis_messages_total", outcome="dropped") == 20
    assert await there.signals.preview(JOB, 1) == Preview("image/jpeg", b"0")


async def test_previews_that_nobody_watches_are_not_fetched(here: Bus, there: Bus) -> None:
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        here.signals.publish(preview())
        here.signals.publish(event(2))
        assert await heard(mailbox) == event(2)

        async def known() -> bool:
            return bool(await there.signals.latest([JOB]))

        await until(known)
    assert there.figure("comfyui_redis_requests_total", use="read", status="ok") == 0


async def test_more_events_than_the_outbox_holds_become_a_hint_to_look(
    here: Bus, there: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_EVENT_BYTES", 10_000)
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        for seq in range(2, 200):
            here.signals.publish(event(seq))
        await told_to_look(mailbox)


async def test_a_link_without_room_is_tried_again_and_nothing_else_stops(
    here: Bus, there: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: there.signals._looking is None)
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        monkeypatch.setattr(link, "MOST_WAITING", 0)
        here.signals.publish(event(2))
        await until(lambda: here.figure("comfyui_redis_fallbacks_total", use="publish") >= 2)
        monkeypatch.undo()
        await told_to_look(mailbox)


async def test_an_event_that_is_too_large_becomes_a_hint_to_its_listeners(here: Bus, there: Bus) -> None:
    with (
        there.signals.listen_job(JOB, previews=False) as mailbox,
        there.signals.listen_job(OTHER, previews=False) as others,
    ):
        here.signals.publish(event(2, detail="x" * wire.ITEM_BYTES))
        await told_to_look(mailbox)
        here.signals.publish(event(2, job=OTHER))
        assert await others.get() == event(2, job=OTHER)


async def test_of_an_end_only_the_fact_is_told(here: Bus, there: Bus) -> None:
    with there.signals.listen_job(JOB, previews=False) as mailbox:
        here.signals.publish(event(3, EventType.DONE, error={"message": "a canary"}))
        assert await heard(mailbox) == Note(JOB, ACCOUNT, 1, event(3, EventType.DONE).body)


async def test_a_thousand_events_arrive_whole_and_in_order(
    here: Bus, there: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAILBOX_EVENTS", 10_000)
    with there.signals.listen_account(ACCOUNT, previews=False) as mailbox:
        for seq in range(2, 1002):
            here.signals.publish(event(seq, n="x" * 500))
        for seq in range(2, 1002):
            assert await heard(mailbox) == event(seq, n="x" * 500)
