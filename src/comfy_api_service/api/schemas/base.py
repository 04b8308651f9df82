"""What the models of requests and of answers have in common."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from comfy_api_service.domain.ids import CROCKFORD
from comfy_api_service.domain.job import Status

JOB_ID_PATTERN: Final = "^job_[0-9A-HJKMNP-TV-Z]{26}$"
BATCH_ID_PATTERN: Final = "^batch_[0-9A-HJKMNP-TV-Z]{26}$"
WORKFLOW_ID_PATTERN: Final = "^(?:wfl_[0-9A-HJKMNP-TV-Z]{26}|[a-z][a-z0-9-]{1,62})$"
"""Of a stored one, or the name of a ready-made one."""
EXAMPLE_JOB: Final = f"job_{CROCKFORD[:26]}"
EXAMPLE_BATCH: Final = f"batch_{CROCKFORD[:26]}"
EXAMPLE_TIME: Final = "2026-01-31T12:00:00.000Z"
EXAMPLE_REQUEST: Final = "req_019aabc0b3a97ad9b8f2d16e5d4b1f6a"

JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN, examples=[EXAMPLE_JOB])]
BatchId = Annotated[str, Field(pattern=BATCH_ID_PATTERN, examples=[EXAMPLE_BATCH])]
WorkflowId = Annotated[str, Field(pattern=WORKFLOW_ID_PATTERN, examples=["text-to-image-sd15"])]
Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        examples=[EXAMPLE_TIME],
    ),
]
JobStatus = Status
Document = dict[str, Any]


def integral(value: Any) -> Any:
    """`20.0` is an integer to JSON Schema, and to every language that has one kind of number."""
    return int(value) if type(value) is float and value.is_integer() else value


Version = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(integral)]


class Request(BaseModel):
    """A body: closed, and strict about types. Its values never stand in the text of an exception."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Answer(BaseModel):
    """An answer: every field is always there."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)
