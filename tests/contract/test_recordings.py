"""The simulator answers and tells what real servers answered and told, scenario by scenario.

What may differ is written down in `normalise.py`; what the recorder did, in `replay.py`. Three recordings
hold a race that went one way: see `_told` and `recordings.load`.
"""

import asyncio
from functools import cache
from typing import Any

import pytest
from tests.contract import normalise
from tests.contract.recordings import FOLDER, SESSIONS, Event, Session, frames, http_events, load
from tests.contract.replay import Observed, replay

CASES = [(session, name) for session in SESSIONS for name in session.scenarios]


@cache
def observed(session: Session) -> dict[str, Observed]:
    return asyncio.run(replay(session))


def _without_status(events: list[Event]) -> list[Event]:
    return [e for e in events if e["type"] != "status"]


def _told(session: Session, scenario: str, events: list[Event]) -> list[Any]:
    if (session.version, scenario) == ("0.3.64", "duplicate_prompt_id"):
        # The second prompt came in between the end of the first and its leaving the queue; in the other
        # version just after it. Queue lengths and the place of `status` differ, their number does not.
        kept = _without_status(events)
        return [*map(normalise.frame, kept), len(events) - len(kept)]
    if scenario == "server_killed_midrun":
        # The preview of the last step had not left the server yet when it was killed.
        events = [e for e in events if e["type"] != "binary"]
    return [normalise.frame(e) for e in events]


@pytest.mark.parametrize(("session", "scenario"), CASES, ids=[f"{s.version}-{n}" for s, n in CASES])
def test_frames_and_answers_are_those_of_the_recording(session: Session, scenario: str) -> None:
    seen = observed(session)[scenario]
    assert seen.failure is None
    recorded = load(session.version, scenario)
    expected = frames(recorded)
    complete = any(e["type"] in {"TIMEOUT", "257"} for e in recorded if e["dir"] == "ws")
    told = seen.frames if complete else seen.frames[: len(expected)]
    assert _told(session, scenario, told) == _told(session, scenario, expected)
    answers = [normalise.answer(e) for e in seen.http]
    assert answers == [normalise.answer(e) for e in http_events(recorded)]


def test_every_recording_is_replayed() -> None:
    files = {(path.parent.name, path.stem) for path in FOLDER.glob("*/*.json")}
    assert files == {(session.version, name) for session, name in CASES}
    assert len(CASES) == len(set(CASES))
