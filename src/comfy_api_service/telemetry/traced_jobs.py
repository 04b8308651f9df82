"""Spans of jobs for whoever has a job's stored place in a trace; costs nothing where traces are off."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from comfy_api_service.telemetry.traceparent import Place, span_of_attempt, stored_place

if TYPE_CHECKING:
    from comfy_api_service.telemetry.tracing import Tracing


class Attempted(Protocol):
    @property
    def job_id(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def trace_context(self) -> str | None: ...


def attempt_place(attempt: Attempted) -> Place | None:
    """The span of an attempt, whether or not it was told yet."""
    stored = stored_place(attempt.trace_context)
    return None if stored is None else stored.at(span_of_attempt(attempt.job_id, attempt.attempt))


def job_span(
    tracing: "Tracing | None", trace_context: str | None, name: str, **options: Any
) -> AbstractContextManager[Any]:
    """A span in a job's trace, for what happens inside; `trace_context` is the column of its row, `options` are those
    of `Tracing.span`. Nothing if traces are off, or the job has none. The span's place is told to nobody outside.
    """
    place = stored_place(trace_context)
    if tracing is None or place is None:
        return nullcontext()
    return tracing.span(name, under=place, **options)
