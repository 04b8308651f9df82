"""Packs of signals: what was put in comes out, and nothing that a stranger sends raises."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.domain.events import DURABLE, Event, Preview, Progress
from comfy_api_service.domain.job import Status
from comfy_api_service.signals import wire
from comfy_api_service.signals.base import Note

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
COUNTS = st.integers(0, wire.MOST_COUNTED)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50) | st.none()
EVENTS = st.builds(
    Event,
    job_id=st.just("job_1"),
    seq=COUNTS,
    type=st.sampled_from(sorted(DURABLE - {"done"})),
    status=st.sampled_from([*Status]),
    at=st.floats(0, 2**33),
    data=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9), max_size=3),
)
PROGRESS = st.builds(
    Progress, st.floats(0, 100), COUNTS | st.none(), COUNTS | st.none(), TEXT, TEXT
)  # fmt: skip
SIGNALS = (
    st.just(wire.Wake())
    | st.just(wire.PoolChanged())
    | st.just(wire.LookNow())
    | st.builds(wire.LookNow, IDS, IDS)
    | st.builds(wire.CancelAsked, IDS)
    | st.builds(wire.Pictured, IDS, IDS, COUNTS)
    | st.builds(Note, st.just("job_1"), IDS, COUNTS, EVENTS | PROGRESS, st.none())
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(SIGNALS, max_size=50))
def test_what_was_packed_is_unpacked(signals: list[wire.Signal]) -> None:
    found: list[wire.Signal | None] = []
    for pack in wire.packs("me", map(wire.item, signals)):
        unpacked = wire.unpack(pack)
        assert unpacked is not None
        assert pack.startswith(wire.head("me"))
        found += unpacked
    assert found == signals


@given(st.binary() | st.builds(wire.picture, COUNTS, st.builds(Preview, st.text(max_size=9), st.binary())))
def test_any_bytes_are_read_or_not(payload: bytes) -> None:
    wire.unpack(payload)
    wire.read_item(payload)
    wire.read_picture(payload)


@given(
    st.sampled_from(["wake", "pool", "cancel", "look", "pictured", "event", "progress", "x"]),
    st.lists(ANYTHING | IDS | COUNTS, max_size=9),
)
def test_any_item_is_read_or_not(kind: str, about: list[object]) -> None:
    try:
        payload = orjson.dumps([1, "x", [[kind, *about]]])
    except TypeError:  # half a character, a number beyond 64 bits
        return
    unpacked = wire.unpack(payload)
    assert unpacked is not None
    for signal in unpacked:
        if signal is not None:
            assert wire.unpack(next(wire.packs("x", [wire.item(signal)]))) == [signal]


def test_packs_keep_to_their_size() -> None:
    items = [b'"' + b"x" * 1000 + b'"'] * 500
    made = list(wire.packs("me", items))
    assert sum(pack.count(b"xx" * 500) for pack in made) == 500
    assert all(len(pack) < wire.PACK_BYTES * 2 < wire.MOST_BYTES for pack in made)


@pytest.mark.parametrize("attempt", [0, 1, 999_999])
def test_a_picture_keeps_its_attempt(attempt: int) -> None:
    preview = Preview("image/png", b"\n1 image/jpeg\n")
    assert wire.read_picture(wire.picture(attempt, preview)) == (attempt, preview)
    head = wire.read_picture(wire.picture(attempt, preview)[:64])
    assert head is not None
    assert head[0] == attempt
