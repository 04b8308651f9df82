"""On whose behalf a line is written: set where a request comes in, and inherited by whatever that starts."""

from contextvars import ContextVar
from typing import Any, Final

from structlog.types import EventDict

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def of_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A processor: the request's id, unless the line has one."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event
