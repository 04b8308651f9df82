"""What waits to be sent to other processes: bounded whatever happens to Redis.

Of progress and previews only the newest of each job waits, and what has no room is dropped; progress that waits when
its attempt ends goes out before the end. Events are never dropped: beyond their bound they become one hint to every
listener to look into the database.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from comfy_api_service.domain.events import Event, Preview, Progress
from comfy_api_service.redis_link.client import Command
from comfy_api_service.signals import wire
from comfy_api_service.signals.base import Note
from comfy_api_service.signals.memory import CLOSES_ATTEMPT
from comfy_api_service.signals.topics import Topics

MOST_EVENT_BYTES: Final = 4 * 1024**2
MOST_JOBS: Final = 1024
"""Jobs of which progress, previews, cancel notices may wait."""
MOST_PICTURE_BYTES: Final = 8 * 1024**2
TOGETHER_BYTES: Final = 1024**2
"""Of previews, in one exchange: a slow network must carry them within its time-out."""
PREVIEW_SECONDS: Final = 0.25
"""Between two previews of a job: callers are shown at most four a second."""
PROGRESS_KEPT_SECONDS: Final = 900
PREVIEW_KEPT_SECONDS: Final = 300


class Outbox:
    def __init__(self, sender: str, topics: Topics) -> None:
        self._sender = sender
        self._topics = topics
        self._wake = self._pool = self._look = False
        self._cancels: dict[str, None] = {}
        self._events: deque[bytes] = deque()
        self._event_bytes = 0
        self._progress: dict[str, Note] = {}
        self._previews: dict[str, tuple[Note, Preview]] = {}
        self._picture_bytes = 0
        self._pictured_at: dict[str, float] = {}
        self._ended: dict[str, None] = {}

    def __bool__(self) -> bool:
        flags = self._wake or self._pool or self._look
        return flags or bool(self._cancels or self._events or self._progress or self._previews or self._ended)

    def wake(self) -> None:
        self._wake = True

    def pool_changed(self) -> None:
        self._pool = True

    def look(self) -> None:
        """Signals were lost: instead of them, all listeners look."""
        self._look = True
        self._events.clear()
        self._event_bytes = 0

    def cancel(self, job_id: str) -> bool:
        """False if it was dropped."""
        if len(self._cancels) < MOST_JOBS:
            self._cancels[job_id] = None
        return job_id in self._cancels

    def put(self, note: Note, now: float) -> bool:
        """False if it was dropped; `now` in seconds of a monotonic clock."""
        match note.body:
            case Event() as event:
                self._put_event(note, event)
                return True
            case Progress():
                if note.job_id not in self._progress and len(self._progress) >= MOST_JOBS:
                    return False
                self._progress[note.job_id] = note
                return True
            case Preview() as preview:
                return self._put_preview(note, preview, now)

    def _put_event(self, note: Note, event: Event) -> None:
        if event.type in CLOSES_ATTEMPT:
            last = self._progress.pop(note.job_id, None)
            if last is not None:
                self._append(wire.item(last))
            self._forget(note.job_id)
        item = wire.item(note)
        if len(item) > wire.ITEM_BYTES:
            item = wire.item(wire.LookNow(note.job_id, note.account_id))
        self._append(item)

    def _append(self, item: bytes) -> None:
        self._events.append(item)
        self._event_bytes += len(item)
        if self._event_bytes > MOST_EVENT_BYTES:
            self.look()

    def _put_preview(self, note: Note, preview: Preview, now: float) -> bool:
        size = len(preview.picture)
        if len(self._pictured_at) >= MOST_JOBS:  # of jobs that ended elsewhere
            self._pictured_at = {
                one: at for one, at in self._pictured_at.items() if now - at < PREVIEW_SECONDS
            }
        if size > wire.PICTURE_BYTES or len(self._pictured_at) >= MOST_JOBS:
            return False
        if now - self._pictured_at.get(note.job_id, -PREVIEW_SECONDS) < PREVIEW_SECONDS:
            return False
        waiting = self._picture_bytes - self._size_of(note.job_id)
        if waiting + size > MOST_PICTURE_BYTES:
            return False
        self._picture_bytes = waiting + size
        self._previews[note.job_id] = (note, preview)
        self._pictured_at[note.job_id] = now
        return True

    def _size_of(self, job_id: str) -> int:
        waiting = self._previews.get(job_id)
        return 0 if waiting is None else len(waiting[1].picture)

    def _forget(self, job_id: str) -> None:
        """An attempt has ended: nothing more of it."""
        self._picture_bytes -= self._size_of(job_id)
        self._previews.pop(job_id, None)
        self._pictured_at.pop(job_id, None)
        if len(self._ended) < MOST_JOBS:
            self._ended[job_id] = None

    def take(self) -> list[Command]:
        """What goes out next, in one exchange; what is kept for newcomers goes before the word of it."""
        topics = self._topics
        orders = [wire.item(wire.CancelAsked(job_id)) for job_id in self._cancels]
        if self._wake:
            orders.append(wire.item(wire.Wake()))
        if self._pool:
            orders.append(wire.item(wire.PoolChanged()))
        progress = [wire.item(note) for note in self._progress.values()]
        commands: list[Command] = [
            ("SET", topics.progress_key(job_id), one, "EX", PROGRESS_KEPT_SECONDS)
            for job_id, one in zip(self._progress, progress, strict=True)
        ]
        news = [*self._events, *progress]
        for note, preview in self._take_previews():
            picture = wire.picture(note.attempt, preview)
            commands.append(("SET", topics.preview_key(note.job_id), picture, "EX", PREVIEW_KEPT_SECONDS))
            news.append(wire.item(wire.Pictured(note.job_id, note.account_id, note.attempt)))
        news += [wire.item(wire.LookNow())] * self._look
        commands += [("PUBLISH", topics.workers, pack) for pack in wire.packs(self._sender, orders)]
        commands += [("PUBLISH", topics.listeners, pack) for pack in wire.packs(self._sender, news)]
        if self._ended:
            keys = [key for job_id in self._ended for key in topics.keys_of(job_id)]
            commands.append(("UNLINK", *keys))
        self._wake = self._pool = self._look = False
        self._cancels.clear()
        self._events.clear()
        self._event_bytes = 0
        self._progress.clear()
        self._ended.clear()
        return commands

    def _take_previews(self) -> Iterator[tuple[Note, Preview]]:
        """The oldest, as many as go together; the rest goes next time."""
        size = 0
        for job_id in list(self._previews):
            size += self._size_of(job_id)
            if size > TOGETHER_BYTES:
                return
            self._picture_bytes -= self._size_of(job_id)
            yield self._previews.pop(job_id)
