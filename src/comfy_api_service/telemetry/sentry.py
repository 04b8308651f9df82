"""Reports of unexpected exceptions to Sentry; loaded only where SENTRY_DSN is set.

A report has the exception's type and stack, the request's and the job's id, and nothing else: it is put together
anew from what is known to be harmless. Messages are left out, for they quote what callers sent.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import sentry_sdk
import structlog
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration

A_MINUTE: Final = 60
"""Reports a minute: a fault that comes again and again says nothing new."""
CLOSE_SECONDS: Final = 2
TAGS: Final = ("event", "request_id", "job_id", "work", "duty", "path")
"""What is taken over from a line of the log; all of it is made by this program but the request's id, which is plain
characters."""
_KEPT: Final = ("event_id", "timestamp", "platform", "level", "release", "environment", "server_name", "tags")
_OF_FRAME: Final = ("filename", "function", "module", "lineno", "in_app")


def open_sentry(dsn: str, *, release: str, role: str, node_id: str) -> None:
    """Begin to report. SENTRY_ENVIRONMENT and proxies are read from the environment by the SDK."""
    sentry_sdk.init(
        dsn=dsn,
        release=f"comfy-api-service@{release}",
        server_name=node_id,
        send_default_pii=False,
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=None,
        auto_session_tracking=False,
        default_integrations=False,  # they read requests, log lines, arguments of the process
        auto_enabling_integrations=False,
        integrations=[DedupeIntegration(), ExcepthookIntegration()],
        before_send=_Scrubber(role),
        shutdown_timeout=CLOSE_SECONDS,
    )


def close_sentry() -> None:
    """Send what is left; blocks for a bounded time."""
    sentry_sdk.get_client().close(timeout=CLOSE_SECONDS)


def report(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """For the log's processors: a line with an exception is a report."""
    fault = _exception(event.get("exc_info"))
    if fault is not None:
        with sentry_sdk.new_scope() as scope:
            for name in TAGS:
                if isinstance(event.get(name), str) and not ("_record" in event and name == "event"):
                    scope.set_tag(name, event[name])  # but a library's own words, which may quote anything
            scope.capture_exception(fault)
    return event


def _exception(found: Any) -> BaseException | None:
    if isinstance(found, BaseException):
        return found
    if isinstance(found, tuple):
        found = found[1]
        return found if isinstance(found, BaseException) else None
    return sys.exc_info()[1] if found else None


class _Scrubber:
    """From the SDK's event to what is sent."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._minute = 0
        self._sent = 0

    def __call__(self, event: Any, _hint: Any) -> Any:
        minute = int(time.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._sent = minute, 0
        self._sent += 1
        return scrubbed(event, self._role) if self._sent <= A_MINUTE else None


def scrubbed(event: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The event without anything that a caller or the machine said."""
    kept = {name: event[name] for name in _KEPT if name in event}
    kept["tags"] = {name: value for name, value in (event.get("tags") or {}).items() if name in TAGS}
    kept["tags"]["role"] = role
    values = (event.get("exception") or {}).get("values") or ()
    kept["exception"] = {"values": [_of_exception(one) for one in values]}
    return kept


def _of_exception(value: Mapping[str, Any]) -> dict[str, Any]:
    frames = (value.get("stacktrace") or {}).get("frames") or ()
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "stacktrace": {
            "frames": [{name: frame[name] for name in _OF_FRAME if name in frame} for frame in frames]
        },
    }
