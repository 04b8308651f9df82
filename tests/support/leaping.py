"""A loop whose clock leaps: no time passes but what everybody waits for, and nobody waits for it."""

import asyncio
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Selector(selectors.DefaultSelector):
    leap: Callable[[float], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.leap is None:
            return super().select(timeout)
        found = super().select(0)
        if not found and timeout != 0:
            assert timeout is not None, "everybody waits for ever"
            self.leap(timeout)
        return found


class LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._ahead = 0.0
        self._stands_at: float | None = None
        self._looking = _Selector()
        super().__init__(self._looking)

    def time(self) -> float:
        return super().time() + self._ahead if self._stands_at is None else self._stands_at

    @contextmanager
    def leaping(self) -> Iterator[None]:
        """Only for waits for somebody who does not answer: whatever takes time elsewhere has none here."""
        self._stands_at = self.time()
        self._looking.leap = self._leap
        yield
        self._looking.leap = None
        self._ahead = self._stands_at - super().time()
        self._stands_at = None

    def _leap(self, seconds: float) -> None:
        assert self._stands_at is not None
        self._stands_at += seconds


def leaping_loop() -> LeapingLoop:
    """The loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, LeapingLoop)
    return loop
