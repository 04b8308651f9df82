"""Which workers are dead: a counter that stood still for a while, by the watcher's own clock and no other.

No clock of another machine and none of the database takes part, so that a step of either kills nobody. Only what
was watched counts: a reading that failed, came late, or was not made in time begins the watch anew, so that
the database's absence, or the watcher's own, kills nobody either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LIFE_SECONDS: Final = 3.0
"""How often a worker raises its counter."""
WATCH_SECONDS: Final = 1.0
"""How often the others' counters are read."""
DEAD_SECONDS: Final = 10.0
"""How long a counter must have stood still."""
POSTING_SECONDS: Final = 8.0
"""How long after its last proof of life a worker may change anything on a backend; it ends before `DEAD_SECONDS`."""
LATE_SECONDS: Final = 2.0
"""A reading that took longer tells of another time than its own."""
GAP_SECONDS: Final = 3.0
"""Between two readings; who was away for longer has watched nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A counter, and since when it is known to stand there: monotonic seconds of the watcher."""

    counter: int
    since: float


@dataclass(frozen=True, slots=True)
class Watch:
    """What one worker has seen of the others, without a break."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    read_at: float | None = None

    def read(self, counters: Mapping[str, int], *, began: float, ended: float) -> "Watch":
        """The watch after a reading that was asked for and came at these times."""
        if ended - began > LATE_SECONDS:
            return Watch()
        unbroken = self.read_at is not None and began - self.read_at <= GAP_SECONDS
        known = self.seen if unbroken else {}
        seen = {}
        for worker, counter in counters.items():
            before = known.get(worker)
            still = before is not None and before.counter == counter
            seen[worker] = before if still and before is not None else Seen(counter, ended)
        return Watch(seen, began)

    def dead(self) -> dict[str, int]:
        """Workers whose counters stood still long enough, with the counters."""
        if self.read_at is None:
            return {}
        return {
            worker: seen.counter
            for worker, seen in self.seen.items()
            if self.read_at - seen.since >= DEAD_SECONDS
        }


def shared_out(scopes: Mapping[str, frozenset[str]], held: Mapping[str, str | None]) -> dict[str, str]:
    """Which worker should drive which backend: as evenly as the scopes permit, with as few changes as that takes.

    `scopes`: the backends that each living worker may drive. `held`: who drives each backend now.
    Every worker works it out for itself, and comes to the same. A backend in nobody's scope is left out.
    """
    may = {
        backend: sorted(worker for worker, scope in scopes.items() if backend in scope)
        for backend in sorted(held)
    }
    drives: dict[str, set[str]] = {worker: set() for worker in scopes}
    for backend, workers in may.items():
        holder = held[backend]
        if holder in workers:
            drives[holder].add(backend)
    for backend in sorted(may, key=lambda one: (len(may[one]), one)):
        if may[backend] and held[backend] not in may[backend]:
            drives[min(may[backend], key=lambda worker: (len(drives[worker]), worker))].add(backend)
    while move := _evening(drives, may):
        backend, giver, taker = move
        drives[giver].remove(backend)
        drives[taker].add(backend)
    return {backend: worker for worker, backends in drives.items() for backend in backends}


def _evening(drives: Mapping[str, set[str]], may: Mapping[str, list[str]]) -> tuple[str, str, str] | None:
    """The next change that makes it more even: from who has most to who has least, at least two fewer."""
    for giver in sorted(drives, key=lambda worker: (-len(drives[worker]), worker)):
        moves = [
            (len(drives[taker]), taker, backend)
            for backend in drives[giver]
            for taker in may[backend]
            if len(drives[taker]) <= len(drives[giver]) - 2
        ]
        if moves:
            _, taker, backend = min(moves)
            return backend, giver, taker
    return None
