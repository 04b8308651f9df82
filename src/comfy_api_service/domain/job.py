"""A job, its states and the moves between them.

Inside, a job is `ready → dispatched → executing → storing →` terminal; outside, `Status` is shown.
The picture of the moves is in docs/ARCHITECTURE.md and is checked against `MOVES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from comfy_api_service.domain.errors import TABLE, Code


class State(StrEnum):
    """What the engine knows of a job."""

    READY = "ready"
    DISPATCHED = "dispatched"
    EXECUTING = "executing"
    STORING = "storing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Status(StrEnum):
    """What a caller sees of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


ACTIVE: Final = frozenset({State.DISPATCHED, State.EXECUTING, State.STORING})
"""States with an open attempt; the fence of every write by a worker."""
TERMINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})
HOLDS_SLOT: Final = frozenset({State.DISPATCHED, State.EXECUTING})
"""States that count for the account's cap; `storing` gives the slot back, so that a slow store blocks nobody."""

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.READY: frozenset({State.DISPATCHED, State.FAILED, State.CANCELED}),
    State.DISPATCHED: frozenset({State.READY, State.EXECUTING, State.STORING, *TERMINAL}),
    State.EXECUTING: frozenset({State.READY, State.STORING, *TERMINAL}),
    State.STORING: frozenset({State.READY, *TERMINAL}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
}

SHOWN: Final[Mapping[State, Status]] = {
    State.READY: Status.QUEUED,
    State.DISPATCHED: Status.QUEUED,
    State.EXECUTING: Status.RUNNING,
    State.STORING: Status.RUNNING,
    State.SUCCEEDED: Status.SUCCEEDED,
    State.FAILED: Status.FAILED,
    State.CANCELED: Status.CANCELED,
}


class CacheUse(StrEnum):
    """How much of a run ComfyUI took from its cache of earlier runs."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


class OutputFormat(StrEnum):
    ORIGINAL = "original"
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class MetadataMode(StrEnum):
    STRIP = "strip"
    EMBED = "embed"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How pictures are delivered, and how much there may be; `quality` (1…100) is for JPEG and WebP."""

    format: OutputFormat = OutputFormat.ORIGINAL
    quality: int = 90
    metadata: MetadataMode = MetadataMode.STRIP
    files: int | None = None
    """Most of one job, as its account's limits were at the submission."""
    bytes: int | None = None
    """Of all of them together."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed; shown to its owner as it is."""

    code: Code
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    node_id: str | None = None

    @property
    def retryable(self) -> bool:
        return TABLE[self.code].retryable


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored file of a result. `key` is its place in storage, never shown."""

    index: int
    node_id: str
    kind: str
    """image, animation, video, audio, text or file; from the content."""
    media_type: str
    bytes: int
    sha256: str
    key: str
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row says it; times are seconds since the epoch, UTC."""

    id: str
    account_id: str
    state: State
    seq: int
    attempt: int
    max_attempts: int
    executed: int
    """Attempts that reached `executing`; only these count for `max_attempts` and poison."""
    priority: int
    params: Mapping[str, Any]
    labels: Mapping[str, str]
    output: OutputOptions
    images: int
    cost: float
    """Estimated seconds of a backend's time."""
    requirement_id: str
    queued_at: float
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    cancel_requested_at: float | None = None
    backend_id: str | None = None
    batch_id: str | None = None
    error: JobError | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    cache: CacheUse | None = None
    generation_time: float | None = None
    ordinal: int = 0
    """How many jobs had entered the account's lane when this one did, itself included."""
    ordinal_cost: float = 0.0
    """The same, in estimated seconds."""
    purged_at: float | None = None
    """When the artifacts were deleted, by retention or by the owner."""
    artifacts: tuple[Artifact, ...] = ()

    @property
    def status(self) -> Status:
        return SHOWN[self.state]

    @property
    def canceling(self) -> bool:
        return self.cancel_requested_at is not None and self.state not in TERMINAL
