"""What the use cases give back: domain values with what a caller needs beside them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from comfy_api_service.domain.events import Event, Preview, Progress
from comfy_api_service.domain.job import Job
from comfy_api_service.domain.submission import Place

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None = None


def paged(found: Sequence[T], limit: int, place: Callable[[T], str]) -> Page[T]:
    """Of what was found when one more than `limit` was asked for; `place` is where the next page begins after."""
    shown = tuple(found[:limit])
    return Page(shown, place(shown[-1]) if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class Link:
    """A signed address of a file; `expires_at` in seconds since the epoch."""

    url: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it now. `links` stand in the order of the job's artifacts."""

    job: Job
    place: Place | None = None
    progress: Progress | None = None
    has_preview: bool = False
    links: tuple[Link, ...] = ()
    backend: str | None = None
    """The backend's name; its address is nobody's business."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole job; the first thing every listener gets."""

    view: JobView


@dataclass(frozen=True, slots=True)
class Durable:
    event: Event


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a job, with the whole job."""

    event: Event
    view: JobView


@dataclass(frozen=True, slots=True)
class Moved:
    job_id: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Pictured:
    job_id: str
    preview: Preview


Notice = Snapshot | Durable | Done | Moved | Pictured


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bytes to send. `chunks(start, end)` reads the half-open range; `size` is the whole length in bytes."""

    media_type: str
    size: int
    filename: str
    etag: str
    chunks: Callable[[int, int | None], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One request of a batch: a job, or why it was refused (as the error's document)."""

    index: int
    view: JobView | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    created_at: float
    items: tuple[BatchItem, ...]
    replayed: bool = False
    """An earlier call with the same Idempotency-Key made it."""

    @property
    def total(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    kind: str
    name: str
    backends: tuple[str, ...]
