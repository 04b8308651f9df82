"""What every carrier of signals must do; a new one joins by a line in `MAKERS`.

`here` speaks, `there` hears: one object within a process, two processes' ends over a server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from tests.support.bus import (
    ACCOUNT,
    JOB,
    LIMIT,
    OTHER,
    bus,
    event,
    heard,
    preview,
    progress,
    told_to_look,
)
from tests.support.stack import until
from tests.support.valkey import Valkey

from comfy_api_service.domain.events import EventType, Preview, Progress
from comfy_api_service.signals.base import MAILBOX_EVENTS, MAILBOX_JOBS, Latest, Look, Signals
from comfy_api_service.signals.memory import MemorySignals


@dataclass(frozen=True)
class Subject:
    here: Signals
    there: Signals

    async def latest(self, job_id: str = JOB) -> Latest | None:
        return (await self.there.latest([job_id])).get(job_id)

    async def comes(self, expected: Latest | None, job_id: str = JOB) -> None:
        """Wait until the other end knows this of the job."""

        async def known() -> bool:
            return await self.latest(job_id) == expected

        await until(known, LIMIT)


@asynccontextmanager
async def in_memory(_: Valkey) -> AsyncIterator[Subject]:
    signals = MemorySignals()
    yield Subject(signals, signals)


@asynccontextmanager
async def over_valkey(server: Valkey) -> AsyncIterator[Subject]:
    async with bus(server.url) as one, bus(server.url) as other:
        yield Subject(one.signals, other.signals)


@asynccontextmanager
async def at_one_end(server: Valkey) -> AsyncIterator[Subject]:
    async with bus(server.url) as one:
        yield Subject(one.signals, one.signals)


MAKERS: dict[str, Callable[[Valkey], AbstractAsyncContextManager[Subject]]] = {
    "memory": in_memory,
    "valkey": over_valkey,
    "valkey, one end": at_one_end,
}


@pytest.fixture(params=MAKERS)
async def subject(request: pytest.FixtureRequest, shared_valkey: Valkey) -> AsyncIterator[Subject]:
    async with MAKERS[request.param](shared_valkey) as made:
        yield made


async def test_a_wake_up_ends_the_wait(subject: Subject) -> None:
    seen = subject.there.wakes
    waiting = [asyncio.create_task(subject.there.woken(seen, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    waited_here = subject.here.wake()
    assert waited_here is (subject.here is subject.there)
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*waiting)
    assert not subject.here.wake()
    assert subject.there.wakes > seen


async def test_a_wake_up_between_the_look_and_the_wait_is_not_missed(subject: Subject) -> None:
    seen = subject.there.wakes
    subject.here.wake()
    await until(lambda: subject.there.wakes > seen)
    async with asyncio.timeout(LIMIT):
        await subject.there.woken(seen, 60)


async def test_a_wait_without_a_wake_up_ends_by_itself(subject: Subject) -> None:
    seen = subject.there.wakes
    await subject.there.woken(seen, 0.01)
    assert subject.there.wakes == seen


async def test_who_listens_to_a_job_hears_of_it_alone_and_in_order(subject: Subject) -> None:
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        subject.here.publish(event(2, job=OTHER))
        for seq in (2, 3, 4):
            subject.here.publish(event(seq, EventType.RUNNING, attempt=1, n=seq))
        assert [await heard(mailbox) for _ in range(3)] == [event(seq, n=seq) for seq in (2, 3, 4)]


async def test_who_listens_to_an_account_hears_of_all_its_jobs(subject: Subject) -> None:
    with (
        subject.there.listen_account(ACCOUNT, previews=False) as mailbox,
        subject.there.listen_account("acc_other", previews=False) as others,
    ):
        subject.here.publish(event(2))
        subject.here.publish(event(2, job=OTHER))
        assert {(await heard(mailbox)).job_id for _ in range(2)} == {JOB, OTHER}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await heard(others)


async def test_progress_and_previews_pass(subject: Subject) -> None:
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        subject.here.publish(progress(25.5))
        assert await heard(mailbox) == progress(25.5)
        subject.here.publish(preview(b"\xff\xd8 with \n and \0"))
        assert await heard(mailbox) == preview(b"\xff\xd8 with \n and \0")


async def test_previews_come_only_to_those_who_want_them(subject: Subject) -> None:
    with subject.there.listen_job(JOB, previews=False) as without:
        subject.here.publish(preview())
        await subject.comes(Latest(1, None, has_preview=True))
        subject.here.publish(event(2))
        assert await heard(without) == event(2)


async def test_what_an_older_attempt_says_is_dropped(subject: Subject) -> None:
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        subject.here.publish(progress(10, attempt=2))
        subject.here.publish(progress(90, attempt=1))
        subject.here.publish(preview(attempt=1))
        subject.here.publish(event(3, attempt=2))
        told = [await heard(mailbox), await heard(mailbox)]
        assert progress(90, attempt=1) not in told
        assert event(3, attempt=2) in told
    await subject.comes(Latest(2, Progress(10, 1, 20, "3", "KSampler"), has_preview=False))


@pytest.mark.parametrize("closing", [EventType.DONE, EventType.REQUEUED])
async def test_how_far_an_attempt_was_is_told_before_its_end(subject: Subject, closing: EventType) -> None:
    """Also to a listener who was busy meanwhile, and where progress waits for that of others."""
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        for percent in (10, 20, 90):
            subject.here.publish(progress(percent))
        subject.here.publish(event(3, closing))
        told = [(await heard(mailbox)).body for _ in range(2)]
        assert told == [progress(90).body, event(3, closing).body]


@pytest.mark.parametrize("closing", [EventType.DONE, EventType.REQUEUED])
async def test_what_a_closed_attempt_still_says_is_dropped(subject: Subject, closing: EventType) -> None:
    subject.here.publish(progress(10))
    subject.here.publish(preview())
    await subject.comes(Latest(1, Progress(10, 1, 20, "3", "KSampler"), has_preview=True))
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        subject.here.publish(event(3, closing))
        assert (await heard(mailbox)).body == event(3, closing).body
        subject.here.publish(progress(99))
        subject.here.publish(event(9, job=JOB, attempt=2))
        assert await heard(mailbox) == event(9, job=JOB, attempt=2)
    latest = await subject.latest()
    assert latest is None or (latest.progress, latest.has_preview) == (None, False)
    assert await subject.there.preview(JOB, 1) is None


async def test_newcomers_are_told_the_latest(subject: Subject) -> None:
    assert await subject.latest() is None
    assert await subject.there.preview(JOB, 1) is None
    for percent in (10, 20, 30):
        subject.here.publish(progress(percent))
    subject.here.publish(preview(b"newest"))
    await subject.comes(Latest(1, Progress(30, 1, 20, "3", "KSampler"), has_preview=True))
    assert await subject.there.preview(JOB, 1) == Preview("image/jpeg", b"newest")
    assert await subject.there.preview(JOB, 2) is None
    assert await subject.there.latest([OTHER]) == {}


async def test_a_cancel_notice_reaches_whoever_acts_on_it_until_he_stops(subject: Subject) -> None:
    asked: list[str] = []
    stop = subject.there.on_cancel(asked.append)
    subject.here.ask_cancel(JOB)
    await until(lambda: asked == [JOB])
    stop()
    others: list[str] = []
    subject.there.on_cancel(others.append)
    subject.here.ask_cancel(OTHER)
    await until(lambda: others == [OTHER])
    assert asked == [JOB]


async def test_a_change_of_the_pool_is_heard_until_one_stops(subject: Subject) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    stop = subject.there.on_pool_change(first.set)
    subject.here.pool_changed()
    async with asyncio.timeout(LIMIT):
        await first.wait()
    stop()
    first.clear()
    subject.there.on_pool_change(second.set)
    subject.here.pool_changed()
    async with asyncio.timeout(LIMIT):
        await second.wait()
    assert not first.is_set()


async def test_a_listener_that_does_not_read_holds_little_and_misses_no_end(subject: Subject) -> None:
    """Durable events beyond the bound become a hint to look; of progress only the newest waits."""
    count = MAILBOX_EVENTS + 10
    with (
        subject.there.listen_job(JOB, previews=True) as slow,
        subject.there.listen_job(JOB, previews=True) as quick,
    ):
        for seq in range(2, count + 2):
            subject.here.publish(event(seq))
            assert (await heard(quick)).body == event(seq).body
        for percent in range(100):
            subject.here.publish(progress(percent))
        await subject.comes(Latest(1, Progress(99, 1, 20, "3", "KSampler"), has_preview=False))
        await told_to_look(slow)
        while len(slow._events):
            await heard(slow)
        assert await heard(slow) == progress(99)
        subject.here.publish(event(count + 2, EventType.DONE))
        assert (await heard(slow)).body == event(count + 2, EventType.DONE).body


async def test_previews_of_many_jobs_are_bounded(subject: Subject) -> None:
    with subject.there.listen_account(ACCOUNT, previews=True) as mailbox:
        for n in range(MAILBOX_JOBS * 2):
            subject.here.publish(preview(bytes(1000), job=f"job_{n:04}"))
        subject.here.publish(event(2, job="job_last"))
        await until(lambda: bool(mailbox._events))
        assert len(mailbox._previews) <= MAILBOX_JOBS
        assert await heard(mailbox) == event(2, job="job_last")


async def test_who_left_costs_nothing(subject: Subject) -> None:
    with subject.there.listen_job(JOB, previews=True) as left:
        pass
    with subject.there.listen_job(JOB, previews=True) as mailbox:
        subject.here.publish(event(2))
        assert await heard(mailbox) == event(2)
    assert not left._events
    assert not isinstance(left, Look)


async def test_the_poll_is_one_that_wake_ups_shorten(subject: Subject) -> None:
    assert subject.there.connected
    assert 0 < subject.there.poll_seconds <= 1
