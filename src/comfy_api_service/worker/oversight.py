"""Watches over the runs of one backend: looks at queue and history where the socket may not have told all,
bounds how long anything may take, removes prompts that nobody wants any more.
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import Final

import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, BadAnswer
from comfy_api_service.comfyui.socket import Session
from comfy_api_service.comfyui.views import QueueView
from comfy_api_service.db import work
from comfy_api_service.db.base import Database
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.worker.contact import Contact
from comfy_api_service.worker.run import Run
from comfy_api_service.worker.verdict import Lost, Why

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 5.0
"""A prompt of which the socket said nothing for so long is looked up."""
SWEEP_SECONDS: Final = 30.0
"""How often the queue is read for prompts that nobody wants any more."""
DEAD_SECONDS: Final = 8.0
"""A backend that could not be reached for so long is given up: its jobs go on elsewhere."""
ZOMBIE_SECONDS: Final = 20.0
"""A prompt that waits in a queue where nothing runs for so long, or runs without any of its nodes, shows a
backend whose worker is dead."""
UNHEEDED_SECONDS: Final = 60.0
"""A prompt that was asked to stop, for being overdue or replaced, and runs on, is given up after so long."""


class Oversight:
    def __init__(
        self,
        runs: Mapping[str, Run],
        client: ComfyClient,
        session: Session,
        contact: Contact,
        db: Database,
        clock: Clock,
        *,
        job_timeout: float,
        stall_timeout: float,
    ) -> None:
        """`runs` is the driver's own record, by prompt id; it changes while this watches."""
        self._runs = runs
        self._client = client
        self._session = session
        self._contact = contact
        self._db = db
        self._clock = clock
        self._job_timeout = job_timeout
        self._stall_timeout = stall_timeout
        self._look_now = asyncio.Event()
        self._swept_at = clock.monotonic()
        self._foreign: set[str] = set()
        self._unheeding: dict[str, float] = {}
        """Replaced prompts that run on, by when they were first asked to stop."""
        self._in_the_way: set[str] = set()
        """Running prompts of which there is no getting rid: while one is there, the backend gets no work."""
        self._blocked = False

    def look_now(self) -> None:
        """Something happened that the socket may not have told whole."""
        self._look_now.set()

    async def run(self) -> None:
        """Once a second, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self._watch_over()
            except BackendError:
                self._contact.ask_now()
            except ServiceError:
                log.warning("sweep_postponed", backend=self._contact.name)

    async def _watch_over(self) -> None:
        now = self._clock.monotonic()
        away_since = self._contact.away_since
        if away_since is not None:
            if now - away_since >= DEAD_SECONDS:
                self._give_up_all("backend unreachable", died=self._contact.refuses)
            return
        for run in tuple(self._runs.values()):
            await self._bound(run, now)
        doubtful = [run for run in self._runs.values() if self._doubtful(run, now)]
        if not doubtful and now - self._swept_at < SWEEP_SECONDS:
            return
        queue = await self._client.queue()
        for run in doubtful:
            try:
                await run.look(queue)
            except BadAnswer:
                log.warning("history_unreadable", job_id=run.assignment.job_id)
            if run.verdict.done() and self._should_have_told(run, now):
                self._session.renew()
            if _runs_nothing(run, now):
                self._contact.suspect("it runs nothing")
                given_up = tuple(self._runs.values())
                self._give_up_all("backend runs nothing", died=True)
                for one in given_up:  # or they would run when it recovers
                    await one.remove()
                return
        await self._sweep(queue, now)

    def _doubtful(self, run: Run, now: float) -> bool:
        """Whether the socket alone cannot be trusted for this run."""
        if run.verdict.done():
            return False
        if run.link is None or run.link != self._session.link or not self._session.connected:
            return True
        if run.watch.untold:
            return True
        return now - max(run.watch.heard_at, run.watch.looked_at) >= SILENT_SECONDS

    def _should_have_told(self, run: Run, now: float) -> bool:
        """Whether an end that a look found was one that this very socket kept silent about."""
        silent = now - run.watch.heard_at >= SILENT_SECONDS
        return silent and run.why is None and run.link == self._session.link and self._session.connected

    async def _bound(self, run: Run, now: float) -> None:
        """No run lasts for ever: `JOB_TIMEOUT` for all, the stall watchdog for those that the socket tells of,
        and for those that wait behind a prompt that is none of ours.
        """
        started_at = run.watch.started_at
        if run.verdict.done():
            return
        if started_at is None:
            await self._bound_waiting(run, now)
        elif now - started_at >= self._job_timeout:
            run.stop(Why("timeout"))
            if now - started_at >= self._job_timeout + UNHEEDED_SECONDS:
                self._contact.suspect("it does not stop")
                run.end(Lost("backend does not stop", backend_died=True))
        elif not run.adopted and now - run.watch.heard_at >= self._stall_timeout:
            self._contact.suspect("it makes no progress")
            run.end(Lost("stalled", backend_died=True))
            await run.remove()

    async def _bound_waiting(self, run: Run, now: float) -> None:
        if any(other.watch.started_at is not None for other in self._runs.values()):
            run.watch.blocked_since = None
        elif run.watch.blocked_since is None:
            run.watch.blocked_since = now
        elif now - run.watch.blocked_since >= self._stall_timeout:
            self._contact.suspect("it does not get to our prompts")
            run.end(Lost("blocked"))
            await run.remove()
            self._blocked = True
            self._swept_at = -math.inf

    def _give_up_all(self, reason: str, *, died: bool) -> None:
        """`died`: the backend went down, as far as can be told, with what this process saw it run."""
        for run in tuple(self._runs.values()):
            executing = run.watch.started_at is not None and not run.adopted
            run.end(Lost(reason, backend_died=died and executing))

    async def _sweep(self, queue: QueueView, now: float) -> None:
        """Remove prompts of attempts that are closed: they were replaced while nobody could reach them."""
        self._swept_at = now
        seen = {item.prompt_id for item in (*queue.running, *queue.pending)}
        unknown = seen - self._runs.keys() - self._foreign
        self._foreign &= seen
        ours = await self._db.read(lambda tx: work.closed_among(tx, sorted(unknown))) if unknown else {}
        closed = [prompt_id for prompt_id, is_closed in ours.items() if is_closed]
        for prompt_id in closed:
            if prompt_id not in self._unheeding:
                log.info("superseded_prompt_removed", backend=self._contact.name, prompt_id=prompt_id)
            await self._client.delete_pending([prompt_id])
            await self._client.interrupt(prompt_id)
        self._foreign |= unknown - ours.keys()
        running = {item.prompt_id for item in queue.running}
        self._unheeding = {one: self._unheeding.get(one, now) for one in closed if one in running}
        await self._keep_off(running, now)

    async def _keep_off(self, running: set[str], now: float) -> None:
        """No work for a backend that runs what neither ends nor heeds: its worker is dead, or busy for others."""
        if self._blocked:
            self._in_the_way |= running - self._runs.keys()
            self._blocked = False
        self._in_the_way |= {one for one, at in self._unheeding.items() if now - at >= UNHEEDED_SECONDS}
        self._in_the_way &= running
        if not self._in_the_way:
            return
        self._contact.suspect("a prompt is in the way")
        for run in tuple(self._runs.values()):
            if run.watch.started_at is None:
                run.end(Lost("blocked"))
                await run.remove()


def _runs_nothing(run: Run, now: float) -> bool:
    """Whether the backend answers, has the prompt, and works on nothing."""
    since = run.watch.pending_since or run.watch.nothing_since
    return not run.verdict.done() and since is not None and now - since >= ZOMBIE_SECONDS
