"""A job as it is asked for: a simple generation, a graph or a stored workflow, and its options; and the answer."""

from typing import Annotated, Any, Final

import orjson
from pydantic import BeforeValidator, Field

from comfy_api_service.api.schemas.base import (
    Answer,
    JobId,
    JobStatus,
    Request,
    Time,
    Version,
    WorkflowId,
    integral,
)
from comfy_api_service.api.schemas.generation import GenerationFields
from comfy_api_service.domain.errors import FieldError, ValidationFailed
from comfy_api_service.domain.graph import canonical
from comfy_api_service.domain.job import MetadataMode, OutputFormat, OutputOptions
from comfy_api_service.domain.submission import GraphRequest, JobOptions, Order, TemplateRequest
from comfy_api_service.domain.templates.fitting import PARAMETERS_MAX

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


class OptionFields(Request):
    """What may stand beside whatever is to be made."""

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
    webhook_url: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="Told of the job's events, signed with the account's own secret "
        "(`POST /api/v1/webhooks/secret`). https and public, as for `POST /api/v1/webhooks`.",
    )
    dedupe: bool = Field(
        False,
        description="An identical request of the last 24 hours that did not fail answers with its job.",
    )

    def options(self) -> JobOptions:
        if self.model_fields_set.isdisjoint(_OPTIONS):
            return _USUAL
        output = self.output
        return JobOptions(
            priority=self.priority,
            deadline=self.deadline,
            max_attempts=self.max_attempts,
            labels=self.labels,
            output=OutputOptions(output.format, output.quality, output.metadata),
            webhook_url=self.webhook_url,
            dedupe=self.dedupe,
        )


_OPTIONS: Final = frozenset(OptionFields.model_fields)
_USUAL: Final = JobOptions()
_LEFT_OUT: Final = {"batch_size", "num_images", "labels", "dedupe"}


class JobRequest(GenerationFields, OptionFields):
    """A simple generation with the options of a job."""

    def order(self, idempotency_key: str | None = None) -> Order:
        return Order(self.generation(), self.options(), self.canonical(), idempotency_key)

    def canonical(self) -> bytes:
        """The same for every spelling of the same request: defaults left out, labels sorted."""
        left_out = None if _LEFT_OUT.isdisjoint(self.model_fields_set) else _LEFT_OUT
        body = self.__pydantic_serializer__.to_json(self, exclude_defaults=True, exclude=left_out)
        labels = orjson.dumps(self.labels, option=orjson.OPT_SORT_KEYS)
        return b"%b|%d|%b" % (body, self.images, labels)


class GraphJobRequest(OptionFields):
    """A whole graph with the options of a job."""

    workflow: dict[str, Any] = Field(
        min_length=1,
        description="In API form (node id to `{class_type, inputs}`), or as the page saves it where that can be "
        "converted exactly.",
    )

    def order(self, idempotency_key: str | None = None) -> Order:
        return Order(GraphRequest(self.workflow), self.options(), _canonical(self), idempotency_key)


class TemplateJobRequest(OptionFields):
    """A stored workflow, filled with values, with the options of a job."""

    workflow_id: WorkflowId
    version: Version | None = Field(None, description="Default: the latest.")
    inputs: dict[str, Any] = Field(
        default_factory=dict, max_length=PARAMETERS_MAX, description="Values for its parameters, by name."
    )

    def order(self, idempotency_key: str | None = None) -> Order:
        asked = TemplateRequest(self.workflow_id, self.version, self.inputs)
        return Order(asked, self.options(), _canonical(self), idempotency_key)


def _canonical(body: OptionFields) -> bytes:
    """The same for every spelling. Raises `ValidationFailed` for what cannot be written as JSON."""
    try:
        return canonical(body.model_dump(mode="python", exclude_defaults=True, exclude={"dedupe"}))
    except ValueError:
        field = "workflow" if isinstance(body, GraphJobRequest) else "inputs"
        raise ValidationFailed(
            [FieldError(field, "has a number, a text or a depth that JSON in UTF-8 cannot have")]
        ) from None


class Cost(Answer):
    """An estimate of the work."""

    pixel_steps: float = Field(ge=0, description="Width times height times pictures times steps.")
    seconds: float = Field(ge=0, description="Of a backend, from runs of the same kind that were measured.")


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
    cost: Cost | None = Field(description="Null for a job that an earlier request made.")
