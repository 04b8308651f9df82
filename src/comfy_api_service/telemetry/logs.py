"""Logs: one JSON line an event, or a readable line in a terminal; request and job ids from the context."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import structlog

from comfy_api_service.domain.times import iso
from comfy_api_service.telemetry.context import completed
from comfy_api_service.telemetry.exceptions import Told
from comfy_api_service.telemetry.lines import Lines

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
Note = Callable[[str, str, int, float, str, str | None, str | None], None]
"""Takes method, route, status, seconds, and the ids of the request, its job and its account, where these are known."""


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


def request_lines() -> Note:
    """What writes the line of a request. That is the one that is written all the time: as JSON which no further
    processor sees it takes a way of its own, at half the cost of the usual one.
    """
    log = structlog.get_logger().bind()
    config = structlog.get_config()
    lines = config["logger_factory"]

    def usual(
        method: str,
        path: str,
        status: int,
        seconds: float,
        _: str,
        job_id: str | None,
        account_id: str | None,
    ) -> None:
        known = {"method": method, "path": path, "status": status, "seconds": seconds}
        ids = {"job_id": job_id, "account_id": account_id}
        log.info("request", **known, **{name: value for name, value in ids.items() if value is not None})

    plain = isinstance(lines, Lines) and config["processors"][:-1] == [completed]
    if not plain or not log.is_enabled_for(logging.INFO):
        return usual
    write = lines.info

    def straight(
        method: str,
        path: str,
        status: int,
        seconds: float,
        request_id: str,
        job_id: str | None,
        account_id: str | None,
    ) -> None:
        line: dict[str, Any] = {"method": method, "path": path, "status": status, "seconds": seconds}
        if job_id is not None:
            line["job_id"] = job_id
        if account_id is not None:
            line["account_id"] = account_id
        line["event"] = "request"
        line["request_id"] = request_id
        line["level"] = "info"
        line["timestamp"] = iso(time.time())
        write(orjson.dumps(line))

    return straight


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
