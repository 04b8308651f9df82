"""Logs: one JSON line an event, or a readable line in a terminal; request and job ids from the context."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson
import structlog

from comfy_api_service.domain.times import iso
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
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _stamped,
        *processors,
        told.processor,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    if as_json:
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(serializer=_serialize)],
            wrapper_class=structlog.make_filtering_bound_logger(number),
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


def _serialize(value: Any, **_: Any) -> bytes:
    return orjson.dumps(value, default=repr)


def _serialize_text(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()
