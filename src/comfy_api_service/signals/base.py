"""What every carrier of signals offers, and the mailbox that a listener reads from."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.domain.job import Job

MAILBOX_EVENTS: Final = 128
"""Durable events kept for a listener that does not read; beyond, it is told to look into the database."""
MAILBOX_JOBS: Final = 64
"""Jobs whose latest progress or preview is kept for a listener that does not read."""


class Note(NamedTuple):
    """Something happened to a job; `attempt` lets a reader drop what an older attempt still says."""

    job_id: str
    account_id: str
    attempt: int
    body: Event | Progress | Preview
    job: Job | None = None
    """With the last event, the job as its transaction left it: spares each listener of this process a reading.

    Without, the end is hearsay from another process: it is to be read.
    """


@dataclass(frozen=True, slots=True)
class Latest:
    """What was last said of a running job, and by which of its attempts."""

    attempt: int
    progress: Progress | None
    has_preview: bool


@dataclass(frozen=True, slots=True)
class Look:
    """Signals were lost or may have been: look into the database."""


class Mailbox:
    """What waits for one listener. Bounded however slowly it is read: progress and previews are replaced by
    newer ones, durable events beyond the bound become one `Look`; nothing that matters is dropped.
    """

    __slots__ = ("_events", "_look", "_previews", "_progress", "_ready", "wants_previews")

    def __init__(self, *, previews: bool) -> None:
        self._events: deque[Note] = deque()
        self._progress: dict[str, Note] = {}
        self._previews: dict[str, Note] = {}
        self.wants_previews = previews
        self._look = False
        self._ready = asyncio.Event()

    def put(self, note: Note) -> None:
        body = note.body
        if isinstance(body, Event):
            told = [note]
            if body.type in (EventType.DONE, EventType.REQUEUED):
                self._previews.pop(note.job_id, None)
                last = self._progress.pop(note.job_id, None)
                told = [note] if last is None else [last, note]
            if len(self._events) >= MAILBOX_EVENTS:
                self._events.clear()
                self._look = True
            else:
                self._events += told
        elif isinstance(body, Preview):
            if not self.wants_previews or len(self._previews) >= MAILBOX_JOBS:
                return
            self._previews[note.job_id] = note
        elif note.job_id in self._progress or len(self._progress) < MAILBOX_JOBS:
            self._progress[note.job_id] = note
        self._ready.set()

    def look(self) -> None:
        self._look = True
        self._ready.set()

    async def get(self) -> Note | Look:
        """The next thing to tell: durable events first, the end of an attempt behind its last progress; then progress,
        then previews.
        """
        while True:
            if self._look:
                self._look = False
                return Look()
            if self._events:
                return self._events.popleft()
            for waiting in (self._progress, self._previews):
                if waiting:
                    return waiting.pop(next(iter(waiting)))
            self._ready.clear()
            await self._ready.wait()


class Signals(Protocol):
    def wake(self) -> bool:
        """Jobs became ready, or room appeared: workers should look. Whether one of this process was waiting."""
        ...

    @property
    def wakes(self) -> int:
        """How many wake-ups there were: read before looking for work, given to `woken` if there was none."""
        ...

    async def woken(self, seen: int, timeout: float) -> None:
        """Wait until there were more wake-ups than `seen`, at most `timeout` seconds."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How often to look for work when no wake-up comes."""
        ...

    @property
    def connected(self) -> bool:
        """False while nothing is heard of other processes: what they do is to be looked up."""
        ...

    def publish(self, note: Note) -> None:
        """Tell listeners; after the commit that it speaks of. Never waits."""
        ...

    async def latest(self, job_ids: Collection[str]) -> Mapping[str, Latest]:
        """What was last said of running jobs, for newcomers; nothing of those that nothing is known of."""
        ...

    async def preview(self, job_id: str, attempt: int) -> Preview | None:
        """The last picture of a running job, if it is of this attempt."""
        ...

    def listen_job(self, job_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]: ...

    def listen_account(self, account_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]: ...

    def ask_cancel(self, job_id: str) -> None:
        """A cancel mark was committed: whoever runs the job should act."""
        ...

    def on_cancel(self, act: Callable[[str], None]) -> Callable[[], None]:
        """Call `act` with the job's id for each notice; returns what ends that."""
        ...

    def pool_changed(self) -> None:
        """A backend came, went or changed its inventory."""
        ...

    def on_pool_change(self, act: Callable[[], None]) -> Callable[[], None]: ...
