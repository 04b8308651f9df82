"""A place in a trace as W3C's `traceparent` writes it, which is also how a job's row keeps it. Standard library
only: it is read where nothing of tracing is loaded.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_SHAPE: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST: Final = 512
_SAMPLED: Final = 1


class Place(NamedTuple):
    """A span, seen from elsewhere; `sampled`: its trace is recorded."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}"

    def at(self, span_id: int) -> "Place":
        """Another span of the same trace."""
        return Place(self.trace_id, span_id, self.sampled)


def place_from(header: bytes) -> Place | None:
    """None for what the specification calls invalid; later versions are read as far as this one goes."""
    found = _SHAPE.fullmatch(header) if len(header) <= _LONGEST else None
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    place = Place(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & _SAMPLED))
    return place if place.trace_id and place.span_id else None


def stored_place(text: str | None) -> Place | None:
    """Of a job's row."""
    return None if text is None else place_from(text.encode("latin-1", "replace"))


def place_of_caller(headers: Iterable[tuple[bytes, bytes]]) -> Place | None:
    """From a request's headers; None if it has no sane one, or several."""
    sent = [value for name, value in headers if name == b"traceparent"]
    return place_from(sent[0]) if len(sent) == 1 else None


def span_of_submission(job_id: str) -> int:
    """The span under which all of a job stands has its id from the job's."""
    return _derived(job_id)


def span_of_attempt(job_id: str, attempt: int) -> int:
    """An attempt's span has its id from the attempt: whoever ends it, also after the death of who began it, tells the
    same span, and what the dead one told stays below it.
    """
    return _derived(f"{job_id}/{attempt}")


def _derived(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") or 1
