"""Logs: one JSON line an event, or a readable line in a terminal; request and job ids from the context."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson
import structlog

from comfy_api_service.domain.times import iso
from comfy_api_service.telemetry.context import of_request
from comfy_api_service.telemetry.exceptions import Told
from comfy_api_service.telemetry.lines import Lines


def configure_logs(
    *,
    level: str,
    as_json: bool,
    messages: bool = False,
    processors: Sequence[structlog.types.Processor] = (),
) -> None:
    """Set up structlog, and the standard library's loggers through it. Call once, in the composition root.

    `messages`: what unexpected exceptions say is logged too. `processors` see each line before its exception is put
    into words.
    """
    told = Told(messages=messages)
    shared: list[structlog.types.Processor] = [
        of_request,
        structlog.processors.add_log_level,
        _stamped,
        *processors,
        told.processor,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    if as_json:
        structlog.configure(
            processors=[*shared, _as_json],
            wrapper_class=type("Straight", (structlog.make_filtering_bound_logger(number),), _STRAIGHT),
            logger_factory=Lines(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
        renderer: structlog.types.Processor = structlog.processors.JSONRenderer(serializer=_serialize_text)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=told.print,  # structlog's own print local variables, or messages
        )
        structlog.configure(
            processors=[*shared[:-1], renderer],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared if as_json else shared[:-1],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for noisy in ("aiohttp.access", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _stamped(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    event["timestamp"] = iso(time.time())
    return event


def _as_json(_logger: Any, _method: str, event: structlog.types.EventDict) -> bytes:
    return orjson.dumps(event, default=repr)


def _straight(self: Any, method: str, event: str | None = None, /, **fields: Any) -> None:
    """Through the processors to the line's bytes. structlog's own method copies the fields twice and looks at what
    comes out, which costs as much as all the processors.
    """
    line: Any = {**self._context, **fields, "event": event} if self._context else {**fields, "event": event}
    for processor in self._processors:
        line = processor(self._logger, method, line)
    getattr(self._logger, method)(line)


_STRAIGHT: Final = {"_proxy_to_logger": _straight}


def _serialize_text(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()
