"""Signals within one process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.signals.base import Mailbox, Note


class MemorySignals:
    """Delivers synchronously; a listener costs a mailbox and a place in a set."""

    def __init__(self) -> None:
        self._wakes = 0
        self._sleepers: set[asyncio.Future[None]] = set()
        self._by_job: dict[str, set[Mailbox]] = {}
        self._by_account: dict[str, set[Mailbox]] = {}
        self._latest: dict[str, tuple[int, Progress | None, Preview | None]] = {}
        self._on_cancel: list[Callable[[str], None]] = []
        self._on_pool: list[Callable[[], None]] = []

    def wake(self) -> bool:
        self._wakes += 1
        waiting = bool(self._sleepers)
        for sleeper in self._sleepers:
            _rouse(sleeper)
        return waiting

    @property
    def wakes(self) -> int:
        return self._wakes

    async def woken(self, seen: int, timeout: float) -> None:
        if self._wakes != seen:
            return
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout, _rouse, sleeper)
        self._sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    def publish(self, note: Note) -> None:
        if not self._remember(note):
            return
        for mailbox in self._by_job.get(note.job_id, ()):
            mailbox.put(note)
        for mailbox in self._by_account.get(note.account_id, ()):
            mailbox.put(note)

    def _remember(self, note: Note) -> bool:
        """Keep the last progress and preview; False for what an older attempt says."""
        body = note.body
        attempt, progress, preview = self._latest.get(note.job_id, (note.attempt, None, None))
        if isinstance(body, Event):
            if body.type in (EventType.DONE, EventType.REQUEUED):
                self._latest.pop(note.job_id, None)
            return True
        if note.attempt < attempt:
            return False
        if note.attempt > attempt:
            progress, preview = None, None
        if isinstance(body, Progress):
            progress = body
        else:
            preview = body
        self._latest[note.job_id] = (note.attempt, progress, preview)
        return True

    def latest(self, job_id: str) -> tuple[Progress | None, Preview | None]:
        _, progress, preview = self._latest.get(job_id, (0, None, None))
        return progress, preview

    @contextmanager
    def _listen(self, place: dict[str, set[Mailbox]], key: str, *, previews: bool) -> Iterator[Mailbox]:
        mailbox = Mailbox(previews=previews)
        place.setdefault(key, set()).add(mailbox)
        try:
            yield mailbox
        finally:
            listeners = place[key]
            listeners.discard(mailbox)
            if not listeners:
                del place[key]

    @contextmanager
    def listen_job(self, job_id: str, *, previews: bool) -> Iterator[Mailbox]:
        with self._listen(self._by_job, job_id, previews=previews) as mailbox:
            yield mailbox

    @contextmanager
    def listen_account(self, account_id: str, *, previews: bool) -> Iterator[Mailbox]:
        with self._listen(self._by_account, account_id, previews=previews) as mailbox:
            yield mailbox

    def ask_cancel(self, job_id: str) -> None:
        for act in tuple(self._on_cancel):
            act(job_id)

    def on_cancel(self, act: Callable[[str], None]) -> Callable[[], None]:
        self._on_cancel.append(act)
        return lambda: self._on_cancel.remove(act)

    def pool_changed(self) -> None:
        for act in tuple(self._on_pool):
            act()

    def on_pool_change(self, act: Callable[[], None]) -> Callable[[], None]:
        self._on_pool.append(act)
        return lambda: self._on_pool.remove(act)


def _rouse(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
