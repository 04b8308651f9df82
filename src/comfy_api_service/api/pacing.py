"""How much of what passes one listener is told: at most 10 progress events and 4 previews a second.

What comes too early is held, the newest of each job only, and told when its time has come. Durable events
are not this module's business: nothing ever holds them up.
"""

from typing import Final

from comfy_api_service.services.views import Done, Durable, Moved, Notice, Pictured, Snapshot

PROGRESS_SECONDS: Final = 0.1
PREVIEW_SECONDS: Final = 0.25
HELD_MOST: Final = 64
"""Jobs of which something is held, for a listener to many."""


class Pacing:
    """Of one listener; times are seconds of a monotonic clock that the caller reads."""

    __slots__ = ("_held", "_next_preview", "_next_progress")

    def __init__(self) -> None:
        self._next_progress = 0.0
        self._next_preview = 0.0
        self._held: dict[tuple[type, str], Moved | Pictured] = {}

    def admit(self, notice: Notice, now: float) -> bool:
        """Whether to tell it now; if not, it is held."""
        if isinstance(notice, Moved | Pictured):
            key = (type(notice), notice.job_id)
            if now < self._next(notice):
                if key in self._held or len(self._held) < HELD_MOST:
                    self._held[key] = notice
                return False
            self._held.pop(key, None)
            self._told(notice, now)
        elif self._held:
            self._forget(notice)
        return True

    def due(self, now: float) -> list[Moved | Pictured]:
        """What was held and may be told now; it counts as told."""
        ready = []
        for key, notice in list(self._held.items()):
            if now >= self._next(notice):
                del self._held[key]
                self._told(notice, now)
                ready.append(notice)
        return ready

    def wait(self, now: float) -> float | None:
        """Seconds until something held may be told; None if nothing is."""
        if not self._held:
            return None
        return max(min(self._next(notice) for notice in self._held.values()) - now, 0.0)

    def _next(self, notice: Moved | Pictured) -> float:
        return self._next_progress if isinstance(notice, Moved) else self._next_preview

    def _told(self, notice: Moved | Pictured, now: float) -> None:
        if isinstance(notice, Moved):
            self._next_progress = now + PROGRESS_SECONDS
        else:
            self._next_preview = now + PREVIEW_SECONDS

    def _forget(self, notice: Notice) -> None:
        """A job that changed has nothing to say of the time before."""
        if isinstance(notice, Durable | Done):
            job_id = notice.event.job_id
        elif isinstance(notice, Snapshot):
            job_id = notice.view.job.id
        else:
            return
        for kind in (Moved, Pictured):
            self._held.pop((kind, job_id), None)
