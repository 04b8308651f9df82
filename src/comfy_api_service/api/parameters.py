"""Parameters of paths, queries and headers that several operations share."""

import re
from typing import Annotated, Any, Final

from fastapi import Path, Query
from pydantic import BeforeValidator, Field, WithJsonSchema

from comfy_api_service.api.cursors import LONGEST
from comfy_api_service.api.reading import truth, whole_number
from comfy_api_service.api.schemas.base import (
    BATCH_ID_PATTERN,
    EXAMPLE_BATCH,
    EXAMPLE_JOB,
    JOB_ID_PATTERN,
    WORKFLOW_ID_PATTERN,
)
from comfy_api_service.api.schemas.uploads import EXAMPLE_UPLOAD, UPLOAD_ID_PATTERN
from comfy_api_service.api.schemas.webhooks import (
    DELIVERY_ID_PATTERN,
    EXAMPLE_DELIVERY,
    EXAMPLE_WEBHOOK,
    WEBHOOK_ID_PATTERN,
)
from comfy_api_service.domain.errors import FieldError, NotFound, ValidationFailed
from comfy_api_service.domain.ids import (
    ACCOUNT_ID,
    BATCH_ID,
    DELIVERY_ID,
    JOB_ID,
    UPLOAD_ID,
    WEBHOOK_ID,
)
from comfy_api_service.domain.times import seconds_of

PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20
THUMBNAIL_MIN: Final = 16
THUMBNAIL_MAX: Final = 1024
LAST_ID_MAX: Final = 2**31 - 1
KEY_ID: Final = re.compile(r"[0-9A-Za-z]{12}")


def _known_job(value: str) -> str:
    if not JOB_ID.fullmatch(value):
        raise NotFound("job")
    return value


def _known_batch(value: str) -> str:
    if not BATCH_ID.fullmatch(value):
        raise NotFound("batch")
    return value


def _known_workflow(value: str) -> str:
    if not re.fullmatch(WORKFLOW_ID_PATTERN, value):
        raise NotFound("workflow")
    return value


def _known_version(value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        raise NotFound("workflow")
    return int(value)


def _known_upload(value: str) -> str:
    if not UPLOAD_ID.fullmatch(value):
        raise NotFound("upload")
    return value


def _known_key(value: str) -> str:
    if not KEY_ID.fullmatch(value):
        raise NotFound("key")
    return value


def _known_webhook(value: str) -> str:
    if not WEBHOOK_ID.fullmatch(value):
        raise NotFound("webhook")
    return value


def _known_delivery(value: str) -> str:
    if not DELIVERY_ID.fullmatch(value):
        raise NotFound("delivery")
    return value


def _known_user(value: str) -> str:
    if not ACCOUNT_ID.fullmatch(value):
        raise NotFound("user")
    return value


def moment(field: str, text: str | None) -> float | None:
    """Seconds since the epoch of an ISO 8601 time. Raises `ValidationFailed`."""
    if text is None:
        return None
    try:
        # a plus sign of a zone that was not quoted arrives as a blank
        return seconds_of(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
    except (ValueError, OverflowError):
        raise ValidationFailed([FieldError(field, "must be an ISO 8601 time")]) from None


def _id(pattern: str, example: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "examples": [example]}


JobPath = Annotated[
    str, Path(), BeforeValidator(_known_job), WithJsonSchema(_id(JOB_ID_PATTERN, EXAMPLE_JOB))
]
BatchPath = Annotated[
    str, Path(), BeforeValidator(_known_batch), WithJsonSchema(_id(BATCH_ID_PATTERN, EXAMPLE_BATCH))
]
UploadPath = Annotated[
    str, Path(), BeforeValidator(_known_upload), WithJsonSchema(_id(UPLOAD_ID_PATTERN, EXAMPLE_UPLOAD))
]
WebhookPath = Annotated[
    str, Path(), BeforeValidator(_known_webhook), WithJsonSchema(_id(WEBHOOK_ID_PATTERN, EXAMPLE_WEBHOOK))
]
DeliveryPath = Annotated[
    str, Path(), BeforeValidator(_known_delivery), WithJsonSchema(_id(DELIVERY_ID_PATTERN, EXAMPLE_DELIVERY))
]
KeyPath = Annotated[
    str, Path(), BeforeValidator(_known_key), WithJsonSchema(_id("^[0-9A-Za-z]{12}$", "4fK9s2LmQx7B"))
]
WorkflowPath = Annotated[
    str,
    Path(),
    BeforeValidator(_known_workflow),
    WithJsonSchema(_id(WORKFLOW_ID_PATTERN, "text-to-image-sd15")),
]
VersionPath = Annotated[
    int,
    Path(),
    BeforeValidator(_known_version),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 999_999_999}),
]
UserPath = Annotated[
    str,
    Path(),
    BeforeValidator(_known_user),
    WithJsonSchema(_id("^acc_(local|[0-9A-HJKMNP-TV-Z]{26})$", "acc_0123456789ABCDEFGHJKMNPQRS")),
]
UserQuery = Annotated[
    str | None,
    Query(pattern="^acc_(local|[0-9A-HJKMNP-TV-Z]{26})$", description="One account's alone."),
]
Flag = Annotated[bool, BeforeValidator(truth), Query()]
Limit = Annotated[
    int, Field(ge=1, le=PAGE_MAX), BeforeValidator(whole_number), Query(description="Most entries.")
]
Cursor = Annotated[
    str | None,
    Query(max_length=LONGEST, description="`next_cursor` of the page before; absent: the first page."),
]
Index = Annotated[
    int,
    Field(ge=0, le=999_999),
    BeforeValidator(whole_number),
    Query(description="Which file of the result."),
]
Thumbnail = Annotated[
    Annotated[int, Field(ge=THUMBNAIL_MIN, le=THUMBNAIL_MAX), BeforeValidator(whole_number)] | None,
    Query(description="A WebP that fits into so many pixels a side."),
]
LastId = Annotated[int, Field(ge=0, le=LAST_ID_MAX), BeforeValidator(whole_number)] | None
