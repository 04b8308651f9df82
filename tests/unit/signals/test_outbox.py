"""What waits to be sent is bounded, whoever says how much; what matters is never dropped."""

import pytest

from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.redis_link.client import Command
from comfy_api_service.signals import outbox, wire
from comfy_api_service.signals.base import Note
from comfy_api_service.signals.outbox import Outbox
from comfy_api_service.signals.topics import Topics

TOPICS = Topics(0)


def event(job: str, seq: int, kind: EventType = EventType.RUNNING) -> Note:
    return Note(job, "acc", 1, Event(job, seq, kind, "running", 1.0))


def progress(job: str, percent: float) -> Note:
    return Note(job, "acc", 1, Progress(percent))


def preview(job: str, size: int = 10) -> Note:
    return Note(job, "acc", 1, Preview("image/jpeg", bytes(size)))


def said(commands: list[Command], channel: str) -> list[wire.Signal | None]:
    found: list[wire.Signal | None] = []
    for command in commands:
        if command[:2] == ("PUBLISH", channel):
            unpacked = wire.unpack(bytes(command[2]))  # type: ignore[arg-type]
            assert unpacked is not None
            found += unpacked
    return found


@pytest.fixture
def box() -> Outbox:
    return Outbox("me", TOPICS)


def test_what_was_taken_is_gone(box: Outbox) -> None:
    assert not box
    box.wake()
    box.pool_changed()
    box.cancel("job_1")
    box.put(event("job_1", 2), 0)
    box.put(progress("job_1", 5), 0)
    box.put(preview("job_1"), 0)
    assert box
    assert box.take()
    assert not box
    assert box.take() == []


def test_many_wake_ups_are_one(box: Outbox) -> None:
    for _ in range(100):
        box.wake()
    assert said(box.take(), TOPICS.workers) == [wire.Wake()]


def test_of_progress_only_the_newest_of_each_job_waits(box: Outbox) -> None:
    for percent in range(100):
        box.put(progress("job_1", percent), 0)
        box.put(progress("job_2", percent), 0)
    commands = box.take()
    assert said(commands, TOPICS.listeners) == [progress("job_1", 99), progress("job_2", 99)]
    assert [command[1] for command in commands if command[0] == "SET"] == [
        TOPICS.progress_key("job_1"),
        TOPICS.progress_key("job_2"),
    ]


def test_an_end_goes_behind_the_last_progress_and_takes_away_the_rest_of_its_attempt(box: Outbox) -> None:
    box.put(progress("job_1", 5), 0)
    box.put(preview("job_1"), 0)
    box.put(event("job_1", 3, EventType.DONE), 0)
    commands = box.take()
    assert said(commands, TOPICS.listeners) == [progress("job_1", 5), event("job_1", 3, EventType.DONE)]
    assert commands[-1] == ("UNLINK", *TOPICS.keys_of("job_1"))
    assert not [command for command in commands if command[0] == "SET"]


def test_events_beyond_the_bound_become_a_hint_to_all(box: Outbox) -> None:
    fit = outbox.MOST_EVENT_BYTES // len(wire.item(event("job_1", 999_999)))
    for seq in range(fit):
        box.put(event("job_1", seq + 1), 0)
    assert wire.LookNow() not in said(box.take(), TOPICS.listeners)
    for seq in range(fit * 5):
        box.put(event("job_1", seq + 1), 0)
        assert box._event_bytes <= outbox.MOST_EVENT_BYTES
    assert wire.LookNow() in said(box.take(), TOPICS.listeners)


def test_previews_are_bounded_in_number_rate_and_size(box: Outbox) -> None:
    assert box.put(preview("job_1"), 10.0)
    assert not box.put(preview("job_1"), 10.2)
    assert box.put(preview("job_1"), 10.25)
    assert not box.put(preview("job_2", wire.PICTURE_BYTES + 1), 10)
    big = wire.PICTURE_BYTES
    taken = sum(box.put(preview(f"job_big_{n}", big), 10.0) for n in range(100))
    assert taken == outbox.MOST_PICTURE_BYTES // big - 1
    sizes = []
    while box:
        commands = box.take()
        sizes.append(sum(len(one[2]) for one in commands if one[0] == "SET" and isinstance(one[2], bytes)))
    assert max(sizes) <= outbox.TOGETHER_BYTES + 200
    assert box._picture_bytes == 0
    assert box.put(preview("job_3"), 11.0)


def test_jobs_that_ended_elsewhere_do_not_take_the_room_of_others(box: Outbox) -> None:
    for n in range(outbox.MOST_JOBS):
        assert box.put(preview(f"job_{n}"), 10.0)
    assert not box.put(preview("job_new"), 10.1)
    assert box.put(preview("job_new"), 11.0)


def test_progress_and_cancel_notices_of_very_many_jobs_are_dropped(box: Outbox) -> None:
    most = outbox.MOST_JOBS
    assert sum(box.put(progress(f"job_{n}", 1), 0) for n in range(most + 5)) == most
    assert sum(box.cancel(f"job_{n}") for n in range(most + 5)) == most
    assert box.cancel("job_0")


def test_the_word_of_a_preview_follows_the_preview(box: Outbox) -> None:
    box.put(preview("job_1"), 0)
    box.put(event("job_1", 2), 0)
    kinds = [command[0] for command in box.take()]
    assert kinds == ["SET", "PUBLISH"]
