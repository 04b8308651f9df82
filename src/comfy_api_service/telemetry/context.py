"""On whose behalf a line is written: set where a request comes in, and inherited by whatever that starts."""

import time
from contextvars import ContextVar
from typing import Any, Final

from structlog.types import EventDict

from comfy_api_service.domain.times import iso

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def completed(_logger: Any, method: str, event: EventDict) -> EventDict:
    """A processor: with level, time and the request's id, unless the line has one. It is one, for a call of a
    processor costs more than what it adds.
    """
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    event["level"] = method
    event["timestamp"] = iso(time.time())
    return event
