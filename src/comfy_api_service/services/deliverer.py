"""Delivers webhooks: takes what the outbox holds, and holds receivers' lanes for as long as something is due.

Any number of processes do this side by side. None knows of the others but by what it finds in the database, and none
waits for another: what one of them held when it died is anybody's a few seconds later.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

import structlog

from comfy_api_service.db import dispatch
from comfy_api_service.db.base import Database
from comfy_api_service.db.dispatch import Lane, Sight
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.services.forever import forever
from comfy_api_service.services.held import Held
from comfy_api_service.services.lane_work import LaneWork, Tools
from comfy_api_service.telemetry import Metrics

log = structlog.get_logger()

ENTRIES: Final = 500
"""Outbox entries in one transaction."""
POLL_SECONDS: Final = 1.0
POLL_MOST: Final = 10.0
ASKERS: Final = 8
"""So many processes ask once a second; of more, each asks more rarely."""
GATHER_SECONDS: Final = 0.05
"""What happens within so little time is taken together."""
RENEW_SECONDS: Final = 2.0
MEASURE_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 3.0
"""How long a process that stops waits for answers; what has none by then is sent again by another one."""


class Deliverer:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        metrics: Metrics,
        tools: Tools,
        *,
        alone: bool,
        lane_work: Callable[[Lane, Tools], LaneWork] = LaneWork,
    ) -> None:
        """`alone`: no other process delivers; whoever held lanes before is dead."""
        self._lane_work = lane_work
        self._db = db
        self._clock = clock
        self._metrics = metrics
        self._tools = tools
        self._alone = alone
        self._wanted = asyncio.Event()
        self._held: Held = tools.held
        self._held.on_freed(self.look)
        self._claiming = asyncio.Lock()
        self._pause = POLL_SECONDS
        self._due_at: float | None = None
        self._draining = False

    def look(self) -> None:
        """Something happened that receivers may want to hear of."""
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled; `drain` first."""
        if self._alone:
            await self._db.write(lambda tx: dispatch.free_all(tx, self._clock.now()))
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("webhooks", self._deliver),
                ("held", self._renew),
                ("figures", self._measure),
            ):
                group.create_task(forever(name, work))

    async def drain(self, grace: float) -> None:
        """Take nothing more, wait for the answers that are under way, let go of what is held."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace), self._claiming:  # what is being claimed is let go of, too
                pass
        tasks = []
        for place in self._held.places():
            place.work.stop()
            tasks.append(place.task)
        if tasks:
            await asyncio.wait(tasks, timeout=min(grace, DRAIN_SECONDS))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        with contextlib.suppress(ServiceError):
            await self._db.write(lambda tx: dispatch.free(tx, self._tools.holder, self._clock.now()))

    async def _deliver(self) -> None:
        while not self._draining:
            self._wanted.clear()
            try:
                more = await self._round()
            except ServiceError:
                more = False
            if not more:
                await self._nap()
        await asyncio.Event().wait()

    async def _nap(self) -> None:
        pause = self._pause * (0.75 + random.random() / 2)  # noqa: S311 - it spreads those that ask
        if self._due_at is not None:
            pause = min(pause, max(self._due_at - self._clock.now(), GATHER_SECONDS))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wanted.wait()
            await asyncio.sleep(GATHER_SECONDS)

    async def _round(self) -> bool:
        """Do what there is to do now; whether there may be more of it."""
        sight = await self._db.read(dispatch.look)
        self._pause = _pause_of(sight)
        due = sight.due_at is not None and sight.due_at <= self._clock.now()
        entries, told = await self._fan_out() if sight.outbox else (0, False)
        lanes = await self._claim() if due or told else 0
        alone_enough = not due and sight.workers <= ASKERS
        self._due_at = sight.due_at if alone_enough else None
        return entries == ENTRIES or lanes > 0

    async def _fan_out(self) -> tuple[int, bool]:
        """How many entries there were, and whether anybody is to be told of them."""
        now = self._clock.now()
        count, receivers = await self._db.write(lambda tx: dispatch.fan_out(tx, now=now, limit=ENTRIES))
        for receiver in receivers:
            work = self._held.work_of(receiver)
            if work is not None:
                work.look()
        return count, bool(receivers)

    async def _claim(self) -> int:
        async with self._claiming:
            room = self._held.room()
            if room.most == 0 or self._draining:
                return 0
            now = self._clock.now()
            found = await self._db.write(lambda tx: dispatch.claim(tx, self._tools.holder, room, now))
            if self._draining:
                return 0
            for lane in found:
                self._begin(lane)
            return len(found)

    def _begin(self, lane: Lane) -> None:
        work = self._lane_work(lane, self._tools)
        task = asyncio.create_task(self._run(lane, work), name="webhook lane")
        self._held.begin(lane, work, task)

    async def _run(self, lane: Lane, work: LaneWork) -> None:
        due_at = None
        try:
            due_at = await work.run()
        except Exception:  # it is anybody's when the hold ends
            log.exception("webhook_lane_failed", account_id=lane.account_id, receiver=lane.receiver)
        finally:
            self._held.end(lane.receiver)
        if due_at is not None and due_at <= self._clock.now() + self._pause:
            self._wanted.set()

    async def _renew(self) -> None:
        """Prove to hold what is held, and stop what somebody else has taken over."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            known = self._held.places()
            if not known:
                continue
            worked = [place.lane.receiver for place in known]
            try:
                kept = await self._db.write(
                    lambda tx: dispatch.renew(tx, self._tools.holder, worked, self._clock.now())  # noqa: B023
                )
            except ServiceError:
                continue
            for place in known:
                if place.lane.receiver not in kept:
                    place.task.cancel()

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(ServiceError):
                found = await self._db.read(lambda tx: dispatch.backlog(tx, self._clock.now()))
                self._metrics.webhook_waiting.set(found.waiting)
                age = 0.0 if found.oldest_at is None else max(self._clock.now() - found.oldest_at, 0.0)
                self._metrics.webhook_oldest.set(age)
            await asyncio.sleep(max(MEASURE_SECONDS, self._pause * MEASURE_SECONDS))


def _pause_of(sight: Sight) -> float:
    """The more processes ask, the more rarely each of them."""
    return min(max(sight.workers / ASKERS, POLL_SECONDS), POLL_MOST)
