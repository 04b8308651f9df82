"""What a process may claim, and who makes room, by what it works already."""

import asyncio
from dataclasses import dataclass

import pytest

from comfy_api_service.db.dispatch import Lane
from comfy_api_service.services import held
from comfy_api_service.services.held import Held


@dataclass
class Work:
    failing: bool = False

    def look(self) -> None: ...
    def stop(self) -> None: ...


def begin(places: Held, receiver: str, account_id: str = "a", *, failing: bool = False) -> Work:
    work = Work(failing)
    future: asyncio.Task[None] = None  # type: ignore[assignment]
    places.begin(Lane(receiver, account_id, None, 0, 0.0), work, future)
    return work


def test_what_is_worked_counts_for_what_may_be_claimed() -> None:
    places = Held(8, each=4, failing=2)
    begin(places, "r1", failing=True)
    begin(places, "r2")
    assert places.take("r2")
    assert places.take("r2")
    room = places.room()
    assert (room.most, room.most_failing, room.each, dict(room.left)) == (5, 1, 4, {"a": 1})
    assert set(room.worked) == {"r1", "r2"}
    places.give("r2")
    places.give("r2")
    places.end("r1")
    room = places.room()
    assert (room.most, room.most_failing, dict(room.left)) == (7, 2, {"a": 3})
    places.end("r2")
    assert not places.room().left


def test_a_lane_has_its_first_place_always_and_more_while_others_have_theirs() -> None:
    places = Held(8, each=4)
    for number in range(3):
        begin(places, f"r{number}")
    assert places.take("r0")
    assert not places.take("r0"), "three quarters of the account's places are taken"
    assert places.take("r1")
    places.end("r2")
    assert places.take("r0")


def test_a_place_is_told_of_when_the_last_claim_had_none() -> None:
    told: list[str] = []
    places = Held(8, each=1)
    places.on_freed(lambda: told.append(""))
    begin(places, "r1")
    begin(places, "r2", "b")
    places.end("r2")
    assert not told, "nobody has looked"
    places.room()
    places.end("r1")
    assert len(told) == 1


def test_one_that_begins_to_fail_makes_room() -> None:
    places = Held(8, each=8, failing=1)
    works = [begin(places, f"r{number}") for number in range(3)]
    works[0].failing = True
    assert not places.wanted_by_others("r0")
    works[1].failing = True
    assert [places.wanted_by_others(f"r{number}") for number in range(3)] == [True, True, False]


def test_turns_are_over_when_others_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "TURN_SECONDS", 0.0)
    places = Held(8, each=2)
    begin(places, "r1")
    places.take("r1")
    assert not places.wanted_by_others("r1"), "there is room"
    begin(places, "r2")
    assert places.wanted_by_others("r1")
    assert not places.wanted_by_others("r2"), "it was not served yet"
