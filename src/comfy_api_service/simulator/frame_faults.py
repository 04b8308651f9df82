"""What can go wrong with single frames on the way to a socket."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One message for one client id, or for everybody (`sid` None). Binary ones have the event `preview`."""

    event: str
    payload: str | bytes
    sid: str | None


class _Budget:
    """How many more frames a fault hits (None: all), and of which events (empty: any)."""

    __slots__ = ("events", "left")

    def __init__(self) -> None:
        self.left: int | None = 0
        self.events: frozenset[str] = frozenset()

    def set(self, count: int | None, events: Iterable[str]) -> None:
        self.left = count
        self.events = frozenset(events)

    def hits(self, frame: Frame) -> bool:
        if self.left == 0 or (self.events and frame.event not in self.events):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FrameFaults:
    """Loses, repeats, reorders or silences frames; off from the start."""

    def __init__(self) -> None:
        self.silent = False
        self.lost = _Budget()
        self.repeated = _Budget()
        self.reordered = _Budget()
        self._held: list[Frame] = []

    @property
    def active(self) -> bool:
        budgets = (self.lost, self.repeated, self.reordered)
        return self.silent or bool(self._held) or any(b.left != 0 for b in budgets)

    @property
    def holds(self) -> bool:
        """A frame waits for the next one to overtake it."""
        return bool(self._held)

    def flush(self) -> list[Frame]:
        held, self._held = self._held, []
        return held

    def apply(self, frame: Frame) -> list[Frame]:
        if self.silent or self.lost.hits(frame):
            return self.flush()
        frames = [frame, frame] if self.repeated.hits(frame) else [frame]
        if self._held:
            return [*frames, *self.flush()]
        if self.reordered.hits(frame):
            self._held = frames
            return []
        return frames
