"""A job in the shape of `generate`, and batches of them."""

from typing import Any, Literal

from pydantic import Field

from comfy_api_service.api.schemas.base import Answer, BatchId, Document, JobId, Request, Time
from comfy_api_service.api.schemas.jobs import ArtifactAnswer, JobErrorAnswer
from comfy_api_service.domain.errors import Code

Word = Literal["queued", "processing", "completed", "failed", "canceled"]


class GenerationAnswer(Answer):
    """`metadata` holds the parameters with what the service decided, and the measured times in seconds."""

    job_id: JobId
    status: Word
    image_url: str | None = Field(description="The first picture; a signed link.")
    images: list[ArtifactAnswer]
    metadata: Document
    created_at: Time
    completed_at: Time | None
    status_url: str
    error: JobErrorAnswer | None


class RefusalAnswer(Answer):
    """Why a request of a batch was not taken."""

    code: Code
    message: str
    details: dict[str, Any]


class BatchItemAnswer(Answer):
    """One request of a batch, in the order of the requests; without a job if it was refused."""

    index: int = Field(ge=0)
    job_id: JobId | None
    status: Word
    image_url: str | None
    images: list[ArtifactAnswer]
    metadata: Document
    created_at: Time
    completed_at: Time | None
    status_url: str | None
    error: JobErrorAnswer | RefusalAnswer | None


class BatchAnswer(Answer):
    """`failed` counts what failed, was canceled, or was refused."""

    batch_id: BatchId
    status_url: str
    created_at: Time
    jobs: list[BatchItemAnswer]
    total: int = Field(ge=1, le=10)
    completed: int = Field(ge=0)
    failed: int = Field(ge=0)


class BatchRequest(Request):
    """Up to 10 requests, each taken or refused on its own: so nothing is said here of what one holds."""

    requests: list[Any] = Field(
        min_length=1,
        max_length=10,
        json_schema_extra={"items": {}},
        description="Each as the body of `POST /api/v1/jobs`.",
        examples=[[{"prompt": "a lighthouse at dawn"}, {"prompt": "the same at night", "steps": 30}]],
    )
