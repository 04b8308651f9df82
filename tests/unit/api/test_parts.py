"""The small parts of the API, each alone."""

import base64
import json
from typing import Any

import pytest

from comfy_api_service.api import cursors
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.faults import shown
from comfy_api_service.api.negotiation import accepted_types
from comfy_api_service.api.pacing import PREVIEW_SECONDS, PROGRESS_SECONDS, Pacing
from comfy_api_service.api.schemas.submission import JobRequest
from comfy_api_service.domain.errors import ValidationFailed
from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.domain.job import OutputFormat, OutputOptions
from comfy_api_service.domain.submission import JobOptions
from comfy_api_service.domain.times import iso, seconds_of
from comfy_api_service.services.views import Durable, Moved, Pictured

JOB = "job_0123456789ABCDEFGHJKMNPQRS"


def test_times_go_there_and_back() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_769_860_800.1239) == "2026-01-31T12:00:00.123Z"
    assert seconds_of("2026-01-31T13:00:00+01:00") == seconds_of("2026-01-31T12:00:00") == 1_769_860_800


def test_cursors_go_there_and_back_and_only_to_their_own_list() -> None:
    assert cursors.encode(cursors.JOBS, None) is None
    assert cursors.decode(cursors.JOBS, None) is None
    assert cursors.decode(cursors.JOBS, cursors.encode(cursors.JOBS, JOB)) == JOB
    name = "loras/folder/naïve.safetensors"
    assert cursors.decode(cursors.MODELS, cursors.encode(cursors.MODELS, name)) == name


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "a",
        "é",
        JOB,
        base64.urlsafe_b64encode(b"j:job_1").decode(),
        base64.urlsafe_b64encode(b"j:" + JOB.encode()).decode() + "==",
        base64.urlsafe_b64encode(b"m:" + JOB.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode(),
    ],
)
def test_a_forged_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValidationFailed):
        cursors.decode(cursors.JOBS, cursor)


@pytest.mark.parametrize(
    ("accept", "types"),
    [
        ([], ()),
        ([""], ()),
        (["*/*"], ()),
        (["image/avif,image/webp,*/*;q=0.8"], ()),
        (["image/webp;q=0.1, image/jpeg"], ("image/jpeg", "image/webp")),
        (["IMAGE/PNG ; Q=0.5", "image/*"], ("image/*", "image/png")),
        (["image/png;q=0"], ()),
        (["image/png;q=nonsense, image/webp"], ("image/webp",)),
        (["image/png;q=9, image/webp"], ("image/png", "image/webp")),
    ],
)
def test_accept(accept: list[str], types: tuple[str, ...]) -> None:
    assert accepted_types(accept) == types


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (5, 5),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616…"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64 + "…"),
        ("\ud800", "?"),
        ({"a": 1}, None),
        ([1], None),
        (None, None),
    ],
)
def test_values_in_errors_are_short_and_plain(value: Any, seen: Any) -> None:
    assert shown(value) == seen


def _moved(percent: float, job_id: str = JOB) -> Moved:
    return Moved(job_id, Progress(percent))


def test_progress_is_paced_and_the_newest_is_kept() -> None:
    pacing = Pacing()
    told = [percent for percent in range(100) if pacing.admit(_moved(percent), percent / 100)]
    assert len(told) <= 11
    pacing = Pacing()
    assert pacing.admit(_moved(1), 10.0)
    assert not pacing.admit(_moved(2), 10.01)
    assert not pacing.admit(_moved(3), 10.02)
    assert pacing.wait(10.02) == pytest.approx(PROGRESS_SECONDS - 0.02)
    assert pacing.due(10.05) == []
    assert pacing.due(10.11) == [_moved(3)]
    assert pacing.wait(10.11) is None


def test_previews_are_paced_apart_from_progress() -> None:
    pacing = Pacing()
    picture = Pictured(JOB, Preview("image/jpeg", b"x"))
    told = [step for step in range(100) if pacing.admit(picture, 5 + step / 100)]
    assert len(told) == 4
    assert pacing.admit(_moved(1), 5.5)
    assert pacing.wait(5.99) is not None
    assert PREVIEW_SECONDS == 0.25


def test_a_durable_event_is_never_held_and_forgets_what_was() -> None:
    pacing = Pacing()
    pacing.admit(_moved(1), 1.0)
    pacing.admit(_moved(2), 1.01)
    pacing.admit(_moved(2, "other"), 1.01)
    assert pacing.admit(Durable(Event(JOB, 2, EventType.RUNNING, "running", 0.0)), 1.02)
    assert pacing.due(2.0) == [_moved(2, "other")]


def test_what_is_held_is_bounded() -> None:
    pacing = Pacing()
    pacing.admit(_moved(0), 1.0)
    for n in range(1000):
        pacing.admit(_moved(n, f"job_{n}"), 1.0)
    assert len(pacing._held) == 64


def test_draining_tells_those_who_came_and_those_who_come() -> None:
    draining = Draining()
    told: list[str] = []
    draining.on_begin(lambda: told.append("stays"))
    leave = draining.on_begin(lambda: told.append("left"))
    leave()
    draining.begin()
    assert told == ["stays"]
    draining.on_begin(lambda: told.append("late"))
    assert told == ["stays", "late"]
    assert draining.begun


def _canonical(body: str) -> bytes:
    return JobRequest.model_validate_json(body).canonical()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", -3),
        ("deadline", 60.0),
        ("max_attempts", 1),
        ("labels", {"order": "4711"}),
        ("webhook_url", "https://example.com/hooks"),
        ("dedupe", True),
    ],
)
def test_an_option_counts_alone_too(name: str, value: object) -> None:
    request = JobRequest.model_validate_json(json.dumps({"prompt": "x", name: value}))
    assert request.options() == JobOptions(**{name: value})  # type: ignore[arg-type]
    assert JobRequest.model_validate_json('{"prompt": "x"}').options() == JobOptions()


def test_an_output_counts_alone_too() -> None:
    request = JobRequest.model_validate_json('{"prompt": "x", "output": {"format": "jpeg", "quality": 60}}')
    assert request.options() == JobOptions(output=OutputOptions(OutputFormat.JPEG, 60))


def test_equal_requests_have_equal_canonical_forms() -> None:
    plain = _canonical('{"prompt": "x"}')
    for same in (
        '{"prompt": "x", "steps": 20}',
        '{"steps": 20.0, "prompt": "x", "seed": -1, "dedupe": true}',
        '{"prompt": "x", "num_images": 1}',
        '{"prompt": "x", "batch_size": 1, "labels": {}, "sampler": "Euler A"}',
    ):
        assert _canonical(same) == plain, same
    assert _canonical('{"prompt": "x", "labels": {"a": "1", "b": "2"}}') == _canonical(
        '{"labels": {"b": "2", "a": "1"}, "prompt": "x"}'
    )
    for other in (
        '{"prompt": "y"}',
        '{"prompt": "x", "num_images": 2}',
        '{"prompt": "x", "seed": 0}',
        '{"prompt": "x", "labels": {"a": "1"}}',
        '{"prompt": "x", "priority": 1}',
        '{"prompt": "x", "output": {"format": "png"}}',
        '{"prompt": "x", "upscale": {}}',
    ):
        assert _canonical(other) != plain, other
