"""Requests read strictly: the body once, as bytes, straight into its model; headers by their rules."""

import re
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from comfy_api_service.api.faults import validation_failed
from comfy_api_service.domain.errors import Code, FieldError, Refused, ValidationFailed

M = TypeVar("M", bound=BaseModel)

WAIT_DEFAULT: Final = 120.0
WAIT_MAX: Final = 300.0
"""Seconds that a request may wait for its job."""
_JSON_TYPE: Final = re.compile(
    rb'application/(?:[a-z0-9.+-]+\+)?json(?:\s*;\s*charset="?utf-?8"?)?', re.IGNORECASE
)
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_PREFERENCE: Final = re.compile(r"wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)


async def read_json(request: Request) -> bytes:
    """The body of a request that says it is JSON; what it holds is still unknown."""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            if value == b"application/json" or _JSON_TYPE.fullmatch(value.strip()):
                return await _body(request)
            break
    raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "The body must be sent as application/json, in UTF-8.")


async def _body(request: Request) -> bytes:
    """Most come in one piece: it is not copied. Raises `ClientDisconnect`."""
    pieces: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def parse(model: type[M], body: bytes) -> M:
    """Raises BAD_REQUEST for what is not JSON, VALIDATION_ERROR with every fault for what does not fit."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError) -> Refused:
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        fault = first.get("ctx", {}).get("error", "")
        return Refused(Code.BAD_REQUEST, f"The body is not JSON: {fault}.")
    return validation_failed(errors)


def idempotency_key(request: Request) -> str | None:
    for name, value in request.scope["headers"]:
        if name == b"idempotency-key":
            if not _VISIBLE.fullmatch(value):
                raise ValidationFailed(
                    [FieldError("Idempotency-Key", "must be 1 to 255 visible ASCII characters")]
                )
            return bytes(value).decode()
    return None


def preferred_wait(request: Request) -> tuple[float, bool]:
    """How long to wait, in seconds, and whether the caller chose it (`Prefer: wait=n`, RFC 7240).

    More than the most is taken as the most; what is not understood is passed over, as the RFC asks.
    """
    for line in request.headers.getlist("prefer"):
        for preference in line.split(","):
            if found := _PREFERENCE.fullmatch(preference.partition(";")[0].strip()):
                return min(float(found[1]), WAIT_MAX), True
            if preference.strip().lower() == "respond-async":
                return 0.0, True
    return WAIT_DEFAULT, False


def whole_number(text: Any) -> Any:
    """For query parameters: digits only, where pydantic would also take `1.0`, ` 1` and `1_0`."""
    if isinstance(text, str):
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError("must be an integer")
        return int(text)
    return text


def truth(text: Any) -> Any:
    """For query parameters: `true` or `false` (or 1 and 0), nothing else."""
    if isinstance(text, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(text)
        if value is None:
            raise ValueError("must be true or false")
        return value
    return text
