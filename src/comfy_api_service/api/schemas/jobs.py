"""A job as its owner sees it."""

from typing import Any, Literal

from pydantic import Field

from comfy_api_service.api.schemas.base import Answer, BatchId, Document, JobId, JobStatus, Time
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import CacheUse

Kind = Literal["image", "animation", "video", "audio", "text", "file"]


class ArtifactAnswer(Answer):
    """One file of a result. The link is signed; reading the job again renews it."""

    url: str
    url_expires_at: Time
    index: int = Field(ge=0)
    node_id: str
    kind: Kind
    media_type: str
    width: int | None
    height: int | None
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    seed: int | None = Field(ge=0, le=2**64 - 1, description="The job's; pictures of one batch share it.")
    meta: Document = Field(
        description="Of one of several pictures its place, from 0, `batch_index`, and their number, `batch_size`."
    )


class ResultAnswer(Answer):
    """What a job gave; times are in seconds."""

    artifacts: list[ArtifactAnswer] = Field(description="Empty after deletion.")
    values: Document = Field(description="Text and numbers that output nodes gave.")
    generation_time: float | None
    queue_time: float | None
    cache: CacheUse | None


class JobErrorAnswer(Answer):
    """Why a job failed."""

    code: Code
    message: str
    details: dict[str, Any]
    node_id: str | None
    retryable: bool


class JobAnswer(Answer):
    """A job; times are UTC, what does not apply now is null."""

    job_id: JobId
    status: JobStatus
    canceling: bool = Field(description="True from the wish to cancel until the backend has stopped.")
    progress: float = Field(ge=0, le=100, description="Per cent.")
    current_step: int | None
    total_steps: int | None
    current_node: str | None
    preview_url: str | None
    queue_position: int | None = Field(ge=1, description="An estimate.")
    estimated_start_at: Time | None = Field(description="An estimate.")
    params: Document
    labels: dict[str, str]
    priority: int
    attempts: int = Field(ge=0)
    max_attempts: int = Field(ge=1)
    backend: str | None
    batch_id: BatchId | None
    queued_at: Time
    started_at: Time | None
    finished_at: Time | None
    deadline_at: Time | None
    purged_at: Time | None = Field(description="When the artifacts were deleted.")
    result: ResultAnswer | None
    error: JobErrorAnswer | None


class JobList(Answer):
    jobs: list[JobAnswer]
    next_cursor: str | None
