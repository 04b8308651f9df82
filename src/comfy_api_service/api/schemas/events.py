"""Events as they stand in a stream: JSON objects with `type`, `job_id`, `status` and what belongs to the type."""

from typing import Annotated, Literal

from pydantic import Field

from comfy_api_service.api.schemas.base import Answer, JobId, JobStatus, Time
from comfy_api_service.api.schemas.jobs import JobAnswer, Kind


class SnapshotEvent(Answer):
    """The whole job; sent first to every listener. `seq` is that of the last durable event it contains."""

    type: Literal["snapshot"]
    job_id: JobId
    status: JobStatus
    seq: int
    job: JobAnswer


class _Durable(Answer):
    """A change of the job; `seq` counts from 1 without gaps."""

    job_id: JobId
    status: JobStatus
    seq: int
    at: Time


class QueuedEvent(_Durable):
    type: Literal["queued"]


class RunningEvent(_Durable):
    type: Literal["running"]
    attempt: int


class RequeuedEvent(_Durable):
    """The attempt was lost, or ran out of memory."""

    type: Literal["requeued"]
    attempt: int
    reason: str


class ArtifactEvent(_Durable):
    """A file was stored; its link comes with `done`."""

    type: Literal["artifact"]
    index: int
    kind: Kind
    media_type: str
    bytes: int


class DoneEvent(Answer):
    """The end, with the whole job."""

    type: Literal["done"]
    job_id: JobId
    status: Literal["succeeded", "failed", "canceled"]
    seq: int
    at: Time
    job: JobAnswer


class ProgressEvent(Answer):
    """How far the present attempt is; `progress` in per cent."""

    type: Literal["progress"]
    job_id: JobId
    status: Literal["running"]
    progress: float = Field(ge=0, le=100)
    step: int | None
    total: int | None
    node: str | None
    message: str | None


class PreviewEvent(Answer):
    """A picture of the unfinished result.

    In Server-Sent Events `data` holds it in base64. On a WebSocket there is no `data`: the next message is
    binary, and is the picture.
    """

    type: Literal["preview"]
    job_id: JobId
    status: Literal["running"]
    media_type: str
    bytes: int
    data: str | None = None


AnyEvent = Annotated[
    SnapshotEvent
    | QueuedEvent
    | RunningEvent
    | RequeuedEvent
    | ArtifactEvent
    | DoneEvent
    | ProgressEvent
    | PreviewEvent,
    Field(discriminator="type"),
]
