"""Signals between processes: packs of small JSON arrays, read as if a stranger had written them.

A pack is `[version, sender, [item, …]]`; an item begins with its kind. What is not understood is skipped: a
newer version may say more.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from comfy_api_service.domain.events import DURABLE, Event, EventType, Preview, Progress
from comfy_api_service.domain.job import Status
from comfy_api_service.signals.base import Note

VERSION: Final = 1
MOST_BYTES: Final = 256 * 1024
"""Of a pack that is read."""
PACK_BYTES: Final = 64 * 1024
"""Of a pack that is sent, one item more or less."""
ITEM_BYTES: Final = 16 * 1024
"""Of an item; an event that is larger is sent as the hint to read it."""
PICTURE_BYTES: Final = 512 * 1024
"""Of a preview; larger ones stay in the process that has them."""
MOST_COUNTED: Final = 1_000_000
LATEST: Final = 2.0**37
"""Seconds since the epoch that a calendar can show."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MEDIA_TYPES: Final = frozenset({"image/jpeg", "image/png"})


@dataclass(frozen=True, slots=True)
class Wake:
    pass


@dataclass(frozen=True, slots=True)
class PoolChanged:
    pass


@dataclass(frozen=True, slots=True)
class CancelAsked:
    job_id: str


@dataclass(frozen=True, slots=True)
class LookNow:
    """To the listeners of one job, or without a job to all: something was not told."""

    job_id: str | None = None
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pictured:
    """There is a new preview, to be fetched by whoever wants it."""

    job_id: str
    account_id: str
    attempt: int


Signal: TypeAlias = Wake | PoolChanged | CancelAsked | LookNow | Pictured | Note


def item(signal: Signal) -> bytes:
    """A signal as JSON. Of the last event only the fact is told: its listeners read the job."""
    match signal:
        case Wake():
            found: list[Any] = ["wake"]
        case PoolChanged():
            found = ["pool"]
        case CancelAsked(job_id):
            found = ["cancel", job_id]
        case LookNow(job_id, account_id):
            found = ["look", job_id, account_id]
        case Pictured(job_id, account_id, attempt):
            found = ["pictured", job_id, account_id, attempt]
        case Note(job_id, account_id, attempt, Event() as event):
            data = {} if event.type is EventType.DONE else event.data
            about = [event.seq, event.type, event.status, event.at, data]
            found = ["event", job_id, account_id, attempt, *about]
        case Note(job_id, account_id, attempt, Progress() as progress):
            about = [progress.percent, progress.step, progress.total, progress.node, progress.message]
            found = ["progress", job_id, account_id, attempt, *about]
        case _:
            raise TypeError("a picture is no item")
    return orjson.dumps(found)


def head(sender: str) -> bytes:
    """What every pack of this sender begins with."""
    return b'[%d,"%s",[' % (VERSION, sender.encode())


def packs(sender: str, items: Iterable[bytes]) -> Iterator[bytes]:
    """As few packs as their size allows."""
    beginning = head(sender)
    together: list[bytes] = []
    size = 0
    for one in items:
        if together and size + len(one) > PACK_BYTES:
            yield beginning + b",".join(together) + b"]]"
            together, size = [], 0
        together.append(one)
        size += len(one)
    if together:
        yield beginning + b",".join(together) + b"]]"


def unpack(payload: bytes) -> list[Signal | None] | None:
    """What a pack says, None for each thing that was not understood; None for no pack at all."""
    if len(payload) > MOST_BYTES:
        return None
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    match found:
        case [1, str(), list(items)]:
            return [_read(one) for one in items]
    return None


def read_item(payload: bytes) -> Signal | None:
    """One item, as it is kept for newcomers."""
    try:
        return _read(orjson.loads(payload)) if len(payload) <= ITEM_BYTES else None
    except orjson.JSONDecodeError:
        return None


def _read(found: Any) -> Signal | None:
    match found:
        case ["wake"]:
            return Wake()
        case ["pool"]:
            return PoolChanged()
        case ["cancel", str(job_id)] if _ID.fullmatch(job_id):
            return CancelAsked(job_id)
        case ["look", None, None]:
            return LookNow()
        case ["look", str(job_id), str(account_id)] if _are_ids(job_id, account_id):
            return LookNow(job_id, account_id)
        case ["pictured", str(job_id), str(account_id), attempt] if _are_ids(job_id, account_id):
            return Pictured(job_id, account_id, attempt) if _is_count(attempt) else None
        case ["event" | "progress" as kind, str(job_id), str(account_id), attempt, *about]:
            if not _are_ids(job_id, account_id) or not _is_count(attempt):
                return None
            body = _event(job_id, about) if kind == "event" else _progress(about)
            return None if body is None else Note(job_id, account_id, attempt, body)
    return None


def _event(job_id: str, about: Sequence[Any]) -> Event | None:
    match about:
        case [seq, str(kind), str(status), at, dict(data)] if _is_count(seq) and _is_number(at, LATEST):
            known = kind in DURABLE and status in Status.__members__.values()
            return Event(job_id, seq, EventType(kind), status, at, data) if known else None
    return None


def _progress(about: Sequence[Any]) -> Progress | None:
    match about:
        case [percent, step, total, None | str(), None | str()] if _is_number(percent, 100.0):
            counted = all(one is None or _is_count(one) for one in (step, total))
            return Progress(*about) if counted else None
    return None


def picture(attempt: int, preview: Preview) -> bytes:
    """A preview as it is kept."""
    return b"%d %s\n%s" % (attempt, preview.media_type.encode(), preview.picture)


def read_picture(payload: bytes) -> tuple[int, Preview] | None:
    """The attempt that a kept preview is of, and the preview; its beginning alone is enough for the attempt."""
    line, _, content = payload[: PICTURE_BYTES + 64].partition(b"\n")
    attempt, _, media_type = line.decode("ascii", "replace").partition(" ")
    if not re.fullmatch(r"[0-9]{1,7}", attempt) or media_type not in _MEDIA_TYPES:
        return None
    return int(attempt), Preview(media_type, content)


def _are_ids(*given: str) -> bool:
    return all(map(_ID.fullmatch, given))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_COUNTED


def _is_number(value: Any, most: float) -> bool:
    return type(value) in {int, float} and 0 <= value <= most
