"""Time as a value that is handed in, so that tests can set it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC: for what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward: for durations and time-outs."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
