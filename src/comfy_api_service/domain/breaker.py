"""A circuit breaker as a value: whether a backend may be asked now, after what it did before.

closed → open after `THRESHOLD` failures in a row → half-open when its time is over: one probe → closed if
that succeeds, else open again for longer. Times are seconds of one monotonic clock, given by the caller.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

THRESHOLD: Final = 5
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 60.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` are those since the last success; `pause` is how long it stays open, in seconds."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    opened_at: float | None = None
    """When it opened or, half-open, when the probe went out."""
    pause: float = 0.0

    def permits(self, now: float) -> bool:
        """True if a request may be sent now. One that is sent while not closed is a probe: call `probe`.

        A probe that is never heard of again bars the way for one more pause, not for ever.
        """
        return self.opened_at is None or now - self.opened_at >= self.pause

    def probe(self, now: float) -> "Breaker":
        """The breaker once a permitted request is on its way: half-open, and closed to all others."""
        if self.state is BreakerState.CLOSED or not self.permits(now):
            return self
        return replace(self, state=BreakerState.HALF_OPEN, opened_at=now)

    def failed(self, now: float) -> "Breaker":
        """After a failure. One that comes late, while it is open, neither extends nor restarts the pause."""
        failures = self.failures + 1
        if self.state is BreakerState.OPEN:
            return replace(self, failures=failures)
        if self.state is BreakerState.CLOSED and failures < THRESHOLD:
            return replace(self, failures=failures)
        pause = min(2 * self.pause, LONGEST_PAUSE) if self.pause else FIRST_PAUSE
        return Breaker(BreakerState.OPEN, failures, now, pause)

    def succeeded(self) -> "Breaker":
        """After a success, whoever had it: closed, with nothing remembered."""
        return self if self == CLOSED else CLOSED


CLOSED: Final = Breaker()
"""As a breaker is at first."""
