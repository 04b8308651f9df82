"""Events of a job: the durable ones have a sequence number and a row, the passing ones have neither."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class EventType(StrEnum):
    SNAPSHOT = "snapshot"
    QUEUED = "queued"
    RUNNING = "running"
    REQUEUED = "requeued"
    ARTIFACT = "artifact"
    DONE = "done"
    PROGRESS = "progress"
    PREVIEW = "preview"


DURABLE: Final = frozenset(
    {EventType.QUEUED, EventType.RUNNING, EventType.REQUEUED, EventType.ARTIFACT, EventType.DONE}
)


@dataclass(frozen=True, slots=True)
class Event:
    """A durable event; `seq` counts from 1 within its job, without gaps. `at` is seconds since the epoch."""

    job_id: str
    seq: int
    type: EventType
    status: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the present attempt is; kept nowhere but in signals. `percent` is 0…100."""

    percent: float
    step: int | None = None
    total: int | None = None
    node: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of the unfinished result, JPEG or PNG."""

    media_type: str
    picture: bytes
