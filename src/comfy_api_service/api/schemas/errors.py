"""The one shape of every error."""

from typing import Any

from pydantic import Field

from comfy_api_service.api.schemas.base import Answer, Time
from comfy_api_service.domain.errors import Code


class ErrorBody(Answer):
    code: Code
    message: str
    details: dict[str, Any] = Field(
        description="For `VALIDATION_ERROR`: `errors`, a list of `{field, message, value, bound}`."
    )
    request_id: str | None
    timestamp: Time


class ErrorAnswer(Answer):
    error: ErrorBody
