"""A job as it is asked for: a simple generation and its options; and the answer to it."""

from typing import Annotated, Any, Final

import orjson
from pydantic import BeforeValidator, Field

from comfy_api_service.api.schemas.base import Answer, JobId, JobStatus, Request, Time, integral
from comfy_api_service.api.schemas.generation import GenerationFields
from comfy_api_service.domain.job import MetadataMode, OutputFormat, OutputOptions
from comfy_api_service.domain.submission import JobOptions, Order

LABELS_MAX: Final = 16
LABEL_KEY: Final = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"
LABEL_VALUE: Final = r"^[^\x00-\x1f\x7f]*$"
LABEL_VALUE_MAX: Final = 256
PRIORITY_MAX: Final = 10
DEADLINE_MIN: Final = 0.1
DEADLINE_MAX: Final = 30 * 86_400.0
ATTEMPTS_MAX: Final = 10

Quality = Annotated[int, Field(ge=1, le=100), BeforeValidator(integral)]
Priority = Annotated[int, Field(ge=-PRIORITY_MAX, le=PRIORITY_MAX), BeforeValidator(integral)]
Attempts = Annotated[int, Field(ge=1, le=ATTEMPTS_MAX), BeforeValidator(integral)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=LABEL_VALUE_MAX)]
_LABELS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": LABELS_MAX,
    "propertyNames": {"pattern": LABEL_KEY},
    "additionalProperties": {"type": "string", "pattern": LABEL_VALUE, "maxLength": LABEL_VALUE_MAX},
}


def _labels_schema(schema: dict[str, Any]) -> None:
    schema.pop("patternProperties", None)
    schema.update(_LABELS_SCHEMA)


class OutputRequest(Request):
    """How the pictures are delivered."""

    format: OutputFormat = OutputFormat.ORIGINAL
    quality: Quality = Field(90, description="For JPEG and WebP.")
    metadata: MetadataMode = Field(
        MetadataMode.STRIP, description="`embed` writes prompt, seed and parameters into the picture."
    )


class JobRequest(GenerationFields):
    """A simple generation with the options of a job."""

    priority: Priority = Field(0, description="Among the caller's own jobs; higher goes first.")
    deadline: float | None = Field(
        None,
        ge=DEADLINE_MIN,
        le=DEADLINE_MAX,
        description="Seconds from now; not finished by then: failed, `DEADLINE_EXCEEDED`.",
    )
    max_attempts: Attempts = 3
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=LABELS_MAX,
        json_schema_extra=_labels_schema,
        description="The caller's own notes.",
    )
    output: OutputRequest = OutputRequest()
    dedupe: bool = Field(
        False,
        description="An identical request of the last 24 hours that did not fail answers with its job.",
    )

    def order(self, idempotency_key: str | None = None) -> Order:
        output = self.output
        return Order(
            self.generation(),
            JobOptions(
                priority=self.priority,
                deadline=self.deadline,
                max_attempts=self.max_attempts,
                labels=self.labels,
                output=OutputOptions(output.format, output.quality, output.metadata),
                dedupe=self.dedupe,
            ),
            self.canonical(),
            idempotency_key,
        )

    def canonical(self) -> bytes:
        """The same for every spelling of the same request: defaults left out, labels sorted."""
        body = self.__pydantic_serializer__.to_json(
            self, exclude_defaults=True, exclude={"batch_size", "num_images", "labels", "dedupe"}
        )
        labels = orjson.dumps(self.labels, option=orjson.OPT_SORT_KEYS)
        return b"%b|%d|%b" % (body, self.images, labels)


class Submitted(Answer):
    """A job that is on the disk; the two estimates are null for one that no longer waits."""

    job_id: JobId
    status: JobStatus
    queued_at: Time
    location: str
    status_url: str
    events_url: str
    websocket_url: str
    queue_position: int | None = Field(ge=1)
    estimated_start_at: Time | None
