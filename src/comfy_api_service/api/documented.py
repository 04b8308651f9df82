"""What the documentation says of an operation: bodies, answers, errors. Nothing here runs in a request."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from comfy_api_service.api.schemas.base import EXAMPLE_REQUEST, EXAMPLE_TIME
from comfy_api_service.api.schemas.errors import ErrorAnswer
from comfy_api_service.domain.errors import TABLE, Code

Responses = dict[int | str, dict[str, Any]]

_REQUEST_ID: Final = {
    "description": "The caller's, if it is sane (1 to 128 of A-Z a-z 0-9 . _ -), else made.",
    "schema": {"type": "string"},
}
RETRY_AFTER: Final = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
LOCATION: Final = {"description": "Where the job is.", "schema": {"type": "string"}}
REPLAYED: Final = {
    "description": "`true` if an earlier request with the same Idempotency-Key made this job or batch.",
    "schema": {"type": "string", "enum": ["true"]},
}
APPLIED: Final = {"description": "The wait that was asked for and granted.", "schema": {"type": "string"}}
ALWAYS: Final = (Code.BAD_REQUEST, Code.INTERNAL_ERROR, Code.SERVICE_UNAVAILABLE)
OF_CALLERS: Final = (Code.UNAUTHORIZED, Code.FORBIDDEN, Code.RATE_LIMIT_EXCEEDED)
OF_BODIES: Final = (
    Code.BAD_REQUEST,
    Code.PAYLOAD_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.VALIDATION_ERROR,
)
OF_SUBMISSIONS: Final = (
    *OF_BODIES,
    Code.NOT_FOUND,
    Code.IDEMPOTENCY_KEY_REUSED,
    Code.MODEL_NOT_FOUND,
    Code.NODE_NOT_AVAILABLE,
    Code.NODE_NOT_ALLOWED,
    Code.INVALID_GRAPH,
    Code.INVALID_INPUT,
    Code.COST_LIMIT_EXCEEDED,
    Code.PROMPT_REFUSED,
    Code.QUEUE_LIMIT_EXCEEDED,
    Code.QUOTA_EXCEEDED,
)


def answers(
    status: int,
    model: type[BaseModel],
    says: str,
    *,
    example: Any = None,
    headers: Mapping[str, Any] | None = None,
) -> Responses:
    content: dict[str, Any] = {} if example is None else {"example": example}
    return {
        status: {
            "model": model,
            "description": says,
            "content": {"application/json": content},
            "headers": {"X-Request-ID": _REQUEST_ID, **(headers or {})},
        }
    }


def gives(
    status: int, media_types: tuple[str, ...], says: str, headers: Mapping[str, Any] | None = None
) -> Responses:
    """An answer that is not JSON."""
    schema = (
        {"type": "string", "format": "binary"}
        if media_types[0] != "text/event-stream"
        else {"type": "string"}
    )
    return {
        status: {
            "description": says,
            "content": {media_type: {"schema": schema} for media_type in media_types},
            "headers": {"X-Request-ID": _REQUEST_ID, **(headers or {})},
        }
    }


def empty(status: int, says: str, headers: Mapping[str, Any] | None = None) -> Responses:
    return {status: {"description": says, "headers": {"X-Request-ID": _REQUEST_ID, **(headers or {})}}}


def errors(*codes: Code, open_to_all: bool = False) -> Responses:
    """The answers for these codes and for those that every operation may give, by status; those of credentials
    too, where one is needed.
    """
    by_status: dict[int, list[Code]] = {}
    for code in (*codes, *(() if open_to_all else OF_CALLERS), *ALWAYS):
        of_status = by_status.setdefault(TABLE[code].http, [])
        if code not in of_status:
            of_status.append(code)
    return {status: _error(status, of_status) for status, of_status in sorted(by_status.items())}


def _error(status: int, codes: list[Code]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": _REQUEST_ID}
    if status in (429, 503):
        headers["Retry-After"] = RETRY_AFTER
    return {
        "model": ErrorAnswer,
        "description": " ".join(f"`{code}`: {TABLE[code].means}" for code in codes),
        "content": {"application/json": {"example": _example(codes[0])}},
        "headers": headers,
    }


def _example(code: Code) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if code is Code.VALIDATION_ERROR:
        details = {
            "errors": [{"field": "width", "message": "must be at most 2048", "value": 4096, "bound": 2048}]
        }
    return {
        "error": {
            "code": code,
            "message": TABLE[code].means,
            "details": details,
            "request_id": EXAMPLE_REQUEST,
            "timestamp": EXAMPLE_TIME,
        }
    }


def body_of(
    model: type[BaseModel] | tuple[type[BaseModel], ...], example: Any, *headers: dict[str, Any]
) -> dict[str, Any]:
    """The request body, one of several perhaps, and the headers, of an operation that parses them itself."""
    models = model if isinstance(model, tuple) else (model,)
    references = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in models]
    reference = references[0] if len(references) == 1 else {"oneOf": references}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference, "example": example}},
        },
        "parameters": list(headers),
    }


IDEMPOTENCY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    "description": "Remembered 24 hours: the same key and body answers with the same job or batch, another body "
    "with `IDEMPOTENCY_KEY_REUSED`.",
}
PREFER: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`wait=n`: how many seconds to wait, at most 300; default 120 (RFC 7240).",
}
