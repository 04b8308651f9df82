"""What every keeper of token buckets offers, and its rule (GCRA), in whole microseconds, so that all agree.

A bucket is one number: its backlog, how long until it would be full again. Taking a token adds `interval` to
it; a token is there as long as the backlog stays within `capacity * interval`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

MICROSECONDS: Final = 1_000_000
LONGEST: Final = 2**52
"""Microseconds that a bucket may take to fill: beyond, Lua's numbers would not be exact."""


class Bucket(NamedTuple):
    """Of `kind` (a word of the code) for `whom` (an account, an address, anything that was sent)."""

    kind: str
    whom: str
    capacity: int
    interval: int
    """Microseconds until one more token is there."""

    @classmethod
    def per(cls, seconds: float, tokens: int, *, kind: str, whom: str) -> "Bucket":
        """At most `tokens` at once, and as many in `seconds`."""
        if tokens < 1 or seconds <= 0 or seconds * MICROSECONDS > LONGEST:
            raise ValueError("a bucket holds at least one token and fills in a time that can be counted")
        return cls(kind, whom, tokens, max(round(seconds * MICROSECONDS / tokens), 1))

    @property
    def key(self) -> str:
        """Of one length whatever was sent, and telling nobody's address."""
        return _key(self.kind, self.whom)

    @property
    def span(self) -> int:
        """Microseconds from empty to full."""
        return self.capacity * self.interval


@lru_cache(maxsize=8192)
def _key(kind: str, whom: str) -> str:
    sent = whom.encode("utf-8", "surrogatepass")
    return f"cui:bucket:{kind}:{hashlib.blake2b(sent, digest_size=16).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Charge:
    """`tokens` of a bucket, for each unit that is asked for; 0 only looks at it."""

    bucket: Bucket
    tokens: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.tokens <= self.bucket.capacity:
            raise ValueError("these tokens can never be had")


class Level(NamedTuple):
    """A bucket after the decision; times in seconds."""

    limit: int
    remaining: int
    reset_after: float
    """Until it is full."""
    retry_after: float
    """Until it has the tokens of one more unit; 0 if it has."""


class Decision(NamedTuple):
    """`granted` of the units that were asked for; `levels` in the order of the charges."""

    granted: int
    levels: tuple[Level, ...]

    @property
    def retry_after(self) -> float:
        """Seconds until one more unit would be granted."""
        return max((level.retry_after for level in self.levels), default=0.0)


class Buckets(Protocol):
    async def take(self, *charges: Charge, units: int = 1) -> Decision:
        """Take the tokens of as many units as all buckets have, each from all of them or from none.

        With one unit: all or nothing. Each bucket may be charged once.
        """
        ...


def decide(charges: Sequence[Charge], granted: int, backlogs: Sequence[int]) -> Decision:
    """`backlogs`: microseconds, after what was granted."""
    return Decision(granted, tuple(map(_level, charges, backlogs)))


def _level(charge: Charge, backlog: int) -> Level:
    bucket = charge.bucket
    capacity, interval = bucket.capacity, bucket.interval
    left = capacity * interval - backlog
    lacking = charge.tokens * interval - left
    return Level(
        capacity, left // interval, backlog / MICROSECONDS, lacking / MICROSECONDS if lacking > 0 else 0.0
    )


def keys_of(charges: Sequence[Charge], units: int) -> list[str]:
    """The keys of the buckets; raises `ValueError` for what no caller may ask."""
    keys = [charge.bucket.key for charge in charges]
    if units < 1 or (len(keys) > 1 and len(set(keys)) != len(keys)):
        raise ValueError("at least one unit, and each bucket once")
    return keys
