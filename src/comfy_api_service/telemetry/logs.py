"""Logs: one JSON line an event, or a readable line in a terminal; request and job ids from the context."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import structlog

from comfy_api_service.telemetry.context import completed
from comfy_api_service.telemetry.exceptions import Told
from comfy_api_service.telemetry.lines import Lines

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


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
    shared: list[structlog.types.Processor] = [completed, *processors]
    number = logging.getLevelNamesMapping()[level.upper()]
    if as_json:
        line = _Json(told)
        structlog.configure(
            processors=[*shared, line],
            wrapper_class=_straight(number),
            logger_factory=Lines(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
        rendered: list[structlog.types.Processor] = [line, _as_text]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=told.print,  # structlog's own print local variables, or messages
        )
        structlog.configure(
            processors=[*shared, console],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )
        rendered = [console]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for noisy in ("aiohttp.access", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Json:
    """The last processor: an event's line."""

    def __init__(self, told: Told) -> None:
        self._with_exception = structlog.processors.ExceptionRenderer(told)

    def __call__(self, logger: Any, method: str, event: structlog.types.EventDict) -> bytes:
        if "exc_info" in event:
            event = self._with_exception(logger, method, event)
        return orjson.dumps(event, default=repr)


def _as_text(_logger: Any, _method: str, line: Any) -> str:
    return str(line, "utf-8")


def _straight(number: int) -> type[Any]:
    """Loggers that take an event through the processors to the line's bytes. structlog's own methods copy the fields
    three times and look at what comes out, which costs as much as all the processors.
    """

    def level(method: str) -> Callable[..., None]:
        def tell(self: Any, event: str, *values: Any, **fields: Any) -> None:
            if values:  # as structlog does it
                event %= values[0] if len(values) == 1 and isinstance(values[0], dict) else values
            fields["event"] = event
            line: Any = {**self._context, **fields} if self._context else fields
            for processor in self._processors:
                line = processor(self._logger, method, line)
            getattr(self._logger, method)(line)

        return tell

    told = {name: level(name) for name in _LEVELS if logging.getLevelNamesMapping()[name.upper()] >= number}
    return type("Straight", (structlog.make_filtering_bound_logger(number),), told)
