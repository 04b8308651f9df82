"""Every error as the one envelope: `{"error": {code, message, details, request_id, timestamp}}`.

The table in `domain/errors.py` gives the status; nothing here invents a code.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from comfy_api_service.api.answers import JSON
from comfy_api_service.api.faults import validation_failed
from comfy_api_service.domain.errors import Code, Refused, ServiceError
from comfy_api_service.domain.times import iso

_OF_STATUS: Final[Mapping[int, tuple[Code, str]]] = {
    400: (Code.BAD_REQUEST, "The request is not as it should be."),
    401: (Code.UNAUTHORIZED, "A credential is needed."),
    403: (Code.FORBIDDEN, "This is not allowed."),
    404: (Code.NOT_FOUND, "There is no such path."),
    405: (Code.METHOD_NOT_ALLOWED, "The path exists, but not with this method."),
    406: (Code.NOT_ACCEPTABLE, "The answer cannot be given in this form."),
    413: (Code.PAYLOAD_TOO_LARGE, "The body is too large."),
    415: (Code.UNSUPPORTED_MEDIA_TYPE, "The body's media type is not accepted here."),
    503: (Code.SERVICE_UNAVAILABLE, "The service is not available now."),
}


def too_large(limit: int) -> Refused:
    return Refused(
        Code.PAYLOAD_TOO_LARGE, f"The body is larger than {limit} bytes.", details={"limit": limit}
    )


def internal_error() -> ServiceError:
    return ServiceError(Code.INTERNAL_ERROR, "The service made a mistake; report it with the request id.")


def of_http_exception(error: HTTPException) -> ServiceError:
    """The framework's own refusals: unknown paths, wrong methods."""
    code, message = _OF_STATUS.get(error.status_code, (Code.INTERNAL_ERROR, ""))
    if code is Code.INTERNAL_ERROR:
        return internal_error() if error.status_code >= 500 else Refused(*_OF_STATUS[400])
    return ServiceError(code, message)


def request_id_of(scope: Scope) -> str | None:
    """The id that the gate gave this request."""
    found = scope.get("comfy_request_id")
    return found if isinstance(found, str) else None


def envelope(error: ServiceError, request_id: str | None) -> dict[str, Any]:
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "details": dict(error.details),
            "request_id": request_id,
            "timestamp": iso(time.time()),
        }
    }


def error_answer(error: ServiceError, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    body = orjson.dumps(envelope(error, request_id_of(scope)), default=str)
    response = Response(body, error.http, headers, JSON)
    _add_headers(response.headers, error)
    return response


def _add_headers(headers: MutableHeaders, error: ServiceError) -> None:
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(math.ceil(error.retry_after), 1))
    if error.code is Code.PAYLOAD_TOO_LARGE:
        headers["Connection"] = "close"  # the rest of the body is not read
    if error.code is Code.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"


async def handle_error(connection: HTTPConnection, error: Exception) -> Response:
    """For every exception that is told to a caller."""
    if isinstance(error, HTTPException):
        refusal, headers = of_http_exception(error), error.headers
    else:
        refusal, headers = error if isinstance(error, ServiceError) else internal_error(), None
    return error_answer(refusal, connection.scope, headers)


async def handle_validation(connection: HTTPConnection, error: Exception) -> Response:
    """Parameters of path, query and headers."""
    if not isinstance(error, RequestValidationError):
        return await handle_error(connection, error)
    return await handle_error(connection, validation_failed(error.errors(), skip=1))
