"""Signals within one process."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.signals.base import Latest, Mailbox, Note

KNOWN_JOBS: Final = 10_000
"""Jobs of which the latest is kept; beyond, those that were silent longest are forgotten."""
CLOSES_ATTEMPT: Final = frozenset({EventType.DONE, EventType.REQUEUED})


@dataclass(slots=True)
class Known:
    """The latest of a job. `attempt`: what older ones still say is dropped."""

    attempt: int
    progress: Progress | None = None
    preview: Preview | None = None
    has_preview: bool = False
    """Also while the picture itself is elsewhere."""


class MemorySignals:
    """Delivers synchronously; a listener costs a mailbox and a place in a set."""

    def __init__(self) -> None:
        self._wakes = 0
        self._sleepers: set[asyncio.Future[None]] = set()
        self._by_job: dict[str, set[Mailbox]] = {}
        self._by_account: dict[str, set[Mailbox]] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._on_cancel: list[Callable[[str], None]] = []
        self._on_pool: list[Callable[[], None]] = []

    poll_seconds: float = 0.25
    connected: bool = True

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
        self.tell(note)

    def tell(self, note: Note) -> bool:
        """Publish; False if it was dropped, because an older attempt says it."""
        if not self._remember(note):
            return False
        for mailbox in self._by_job.get(note.job_id, ()):
            mailbox.put(note)
        for mailbox in self._by_account.get(note.account_id, ()):
            mailbox.put(note)
        return True

    def _remember(self, note: Note) -> bool:
        """Keep the latest; False for what an older attempt says."""
        body = note.body
        if isinstance(body, Event):
            if body.type in CLOSES_ATTEMPT:
                self._keep(note.job_id, Known(note.attempt + 1))
            return True
        known = self.known(note.job_id, note.attempt)
        if known is None:
            return False
        if isinstance(body, Progress):
            known.progress = body
        else:
            known.preview, known.has_preview = body, True
        return True

    def known(self, job_id: str, attempt: int) -> Known | None:
        """Where to note what this attempt says; None if there is a newer one, or the job has ended."""
        known = self._known.get(job_id)
        if known is not None and known.attempt > attempt:
            return None
        if known is None or known.attempt < attempt:
            known = Known(attempt)
        self._keep(job_id, known)
        return known

    def _keep(self, job_id: str, known: Known) -> None:
        self._known[job_id] = known
        self._known.move_to_end(job_id)
        if len(self._known) > KNOWN_JOBS:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """Of all jobs: what was heard of them may be old."""
        self._known.clear()

    async def latest(self, job_ids: Collection[str]) -> Mapping[str, Latest]:
        return {
            job_id: Latest(known.attempt, known.progress, known.has_preview)
            for job_id in job_ids
            if (known := self._known.get(job_id)) is not None
        }

    async def preview(self, job_id: str, attempt: int) -> Preview | None:
        known = self._known.get(job_id)
        return known.preview if known is not None and known.attempt == attempt else None

    def look(self, job_id: str, account_id: str) -> None:
        """Let the listeners of a job look into the database."""
        for mailbox in (*self._by_job.get(job_id, ()), *self._by_account.get(account_id, ())):
            mailbox.look()

    def look_all(self) -> None:
        for listeners in (*self._by_job.values(), *self._by_account.values()):
            for mailbox in listeners:
                mailbox.look()

    def wants_preview(self, job_id: str, account_id: str) -> bool:
        """Whether somebody listens who would get a picture of this job."""
        listeners = (*self._by_job.get(job_id, ()), *self._by_account.get(account_id, ()))
        return any(mailbox.wants_previews for mailbox in listeners)

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
