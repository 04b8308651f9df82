"""Names in Redis: two channels, and the keys of what is kept for newcomers.

Channels know no databases, unlike keys: so the number is part of every name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    db: int

    @property
    def workers(self) -> str:
        """Wake-ups, cancel notices, changes of the pool: every process hears them."""
        return f"cui:{self.db}:workers"

    @property
    def listeners(self) -> str:
        """Events and progress. There is far more of it, and a process without callers does not hear it."""
        return f"cui:{self.db}:listeners"

    def progress_key(self, job_id: str) -> str:
        return f"cui:{self.db}:progress:{job_id}"

    def preview_key(self, job_id: str) -> str:
        return f"cui:{self.db}:preview:{job_id}"

    def keys_of(self, job_id: str) -> tuple[str, str]:
        return self.progress_key(job_id), self.preview_key(job_id)
