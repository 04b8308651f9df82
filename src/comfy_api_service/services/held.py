"""The lanes that this process works, each with a place for at least one delivery: what may be claimed, what is renewed
and who has to make room all follow from here.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from comfy_api_service.db.dispatch import Lane, Room

AT_ONCE: Final = 256
"""Deliveries open in a process."""
OF_ONE_ACCOUNT: Final = 64
FAILING_LANES: Final = 64
"""Receivers that keep failing and are tried at once."""
FOR_MORE: Final = 0.75
"""Share of the places that a receiver may have more than one of: the rest is for receivers that have none yet."""
TURN_SECONDS: Final = 5.0
"""How long a lane is worked while others may wait for its place."""


class Work(Protocol):
    """What is done for a lane."""

    @property
    def failing(self) -> bool:
        """Whether its receiver keeps failing."""
        ...

    def look(self) -> None:
        """Something may have been added to the lane."""

    def stop(self) -> None:
        """Take nothing more; what is open may end."""


@dataclass(slots=True)
class Place:
    lane: Lane
    work: Work
    task: "asyncio.Task[None]"
    open: int = 0
    served_since: float = math.inf

    @property
    def used(self) -> int:
        return max(self.open, 1)


class Held:
    def __init__(
        self, total: int = AT_ONCE, *, each: int = OF_ONE_ACCOUNT, failing: int = FAILING_LANES
    ) -> None:
        """`each`: most of one account; `failing`: most of receivers that keep failing."""
        self._total = total
        self._each = each
        self._failing = failing
        self._places: dict[str, Place] = {}
        self._used = 0
        self._used_by: Counter[str] = Counter()
        self._short = False
        self._short_of_failing = False
        self._short_of: frozenset[str] = frozenset()
        self._freed: Callable[[], None] = lambda: None

    def on_freed(self, told: Callable[[], None]) -> None:
        """Tell when there is a place again that the last claim did not have."""
        self._freed = told

    @property
    def receivers(self) -> Collection[str]:
        return self._places.keys()

    def places(self) -> list[Place]:
        return list(self._places.values())

    def work_of(self, receiver: str) -> Work | None:
        place = self._places.get(receiver)
        return None if place is None else place.work

    def room(self) -> Room:
        """What may be claimed now."""
        failing = self._failing - self._count_failing()
        left = {account: max(self._each - used, 0) for account, used in self._used_by.items()}
        room = Room(
            most=max(self._total - self._used, 0),
            most_failing=max(failing, 0),
            each=self._each,
            left=left,
            worked=frozenset(self._places),
        )
        self._short = room.most == 0
        self._short_of_failing = room.most_failing == 0
        self._short_of = frozenset(account for account, count in left.items() if count == 0)
        return room

    def begin(self, lane: Lane, work: Work, task: "asyncio.Task[None]") -> None:
        self._places[lane.receiver] = Place(lane, work, task)
        self._use(lane.account_id, 1)

    def end(self, receiver: str) -> None:
        place = self._places.pop(receiver)
        self._use(place.lane.account_id, -place.used)
        if self._short_of_failing and place.work.failing:
            self._freed()

    def take(self, receiver: str) -> bool:
        """A place for one more delivery. The first one is always there: it came with the lane."""
        place = self._places[receiver]
        if place.open == 0:
            place.open = 1
            place.served_since = min(place.served_since, time.monotonic())
            return True
        account_id = place.lane.account_id
        if self._used >= self._total * FOR_MORE or self._used_by[account_id] >= self._each * FOR_MORE:
            return False
        place.open += 1
        self._use(account_id, 1)
        return True

    def give(self, receiver: str) -> None:
        """A delivery is over."""
        place = self._places[receiver]
        place.open -= 1
        if place.open > 0:
            self._use(place.lane.account_id, -1)

    def wanted_by_others(self, receiver: str) -> bool:
        """Whether the lane has to be let go of, for others that may wait."""
        place = self._places[receiver]
        if place.work.failing and self._count_failing() > self._failing:
            return True
        full = self._used >= self._total or self._used_by[place.lane.account_id] >= self._each
        return full and time.monotonic() - place.served_since >= TURN_SECONDS

    def _count_failing(self) -> int:
        return sum(place.work.failing for place in self._places.values())

    def _use(self, account_id: str, count: int) -> None:
        self._used += count
        self._used_by[account_id] += count
        if not self._used_by[account_id]:
            del self._used_by[account_id]
        if count < 0 and (self._short or account_id in self._short_of):
            self._freed()
