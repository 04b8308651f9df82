"""Traces, by OpenTelemetry: the one module that knows its SDK, loaded only where traces are on.

A job's trace outlives processes: its place is in the job's row, and the spans of submission and attempt have ids
that follow from the job's (see `traceparent`). They are told when they are over, by whoever ended them.
Attributes hold ids, codes and figures; never prompts, names of files, addresses of callers or messages of errors.
"""

import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.telemetry.metrics import Metrics
from comfy_api_service.telemetry.traceparent import Place

Attributes = Mapping[str, str | int | float | bool]
CLIENT: Final = SpanKind.CLIENT
CONSUMER: Final = SpanKind.CONSUMER
INTERNAL: Final = SpanKind.INTERNAL
PRODUCER: Final = SpanKind.PRODUCER
SERVER: Final = SpanKind.SERVER

CLOSE_SECONDS: Final = 3.0
"""How long the end of the process waits for the last spans to be sent."""
TELL_SECONDS: Final = 60.0
"""Between two lines in the log about a collector that takes nothing."""
BURST: Final = 10.0
_FROM_CALLER: Final = contexts.create_key("comfyui-from-caller")
log = structlog.get_logger()


class Tracing:
    """Spans of this process. Made once, in the composition root; `close` sends what is left."""

    def __init__(
        self,
        *,
        endpoint: str | None,
        version: str,
        role: str,
        metrics: Metrics,
        callers_per_second: float,
        exporter: SpanExporter | None = None,
    ) -> None:
        """`endpoint`: the collector's base address, if the environment does not name it; everything else is read
        from the environment by the SDK. `callers_per_second`: how many traces are recorded because callers say so.
        """
        _hush()
        resource: dict[str, Any] = {SERVICE_VERSION: version, "comfyui.role": role}
        if not _named():
            resource[SERVICE_NAME] = "comfy-api-service"
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=Resource.create(resource), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.sampler = _OwnDecision(self._provider.sampler, _Allowance(callers_per_second))
        made = exporter or _exporter(endpoint)
        self._provider.add_span_processor(_Counting(metrics))
        self._provider.add_span_processor(BatchSpanProcessor(_Watched(made, metrics)))
        self._tracer = self._provider.get_tracer("comfy_api_service", version)

    def close(self) -> None:
        """Send what is left, for as long as `CLOSE_SECONDS`; blocks."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()  # the SDK may wait for half a minute
        closing.join(CLOSE_SECONDS)

    # --- where one is -----------------------------------------------------------------------------------

    def recorded(self) -> bool:
        """Whether what happens here and now belongs to a trace that is recorded."""
        return trace.get_current_span().get_span_context().trace_flags.sampled

    def here(self) -> Place | None:
        """The current span."""
        return _place_of(trace.get_current_span())

    @contextlib.contextmanager
    def within(self, place: Place | None) -> Iterator[None]:
        """What happens inside belongs to this place, which somebody else tells of. None: to no trace."""
        token = contexts.attach(_context_at(place))
        try:
            yield
        finally:
            contexts.detach(token)

    # --- spans ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def span(
        self,
        name: str,
        *,
        under: Place | None = None,
        kind: SpanKind = INTERNAL,
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """What happens inside, below `under`, or below the current span."""
        context = None if under is None else _context_at(under)
        span = self._tracer.start_span(name, context, kind, attributes)
        token = contexts.attach(trace.set_span_in_context(span))
        try:
            yield span
        except Exception as fault:
            fail(span, kind_of(fault))
            raise
        finally:
            contexts.detach(token)
            span.end()

    @contextlib.contextmanager
    def below(
        self, place: Place | None, name: str, *, attributes: Attributes | None = None
    ) -> Iterator[Span]:
        """As `span`, for a place that may be none: then nothing is told."""
        if place is None:
            yield trace.INVALID_SPAN
            return
        with self.span(name, under=place, attributes=attributes) as span:
            yield span

    def tell(
        self,
        name: str,
        *,
        under: Place,
        start: float,
        end: float,
        span_id: int | None = None,
        kind: SpanKind = INTERNAL,
        attributes: Attributes | None = None,
        fault: str | None = None,
    ) -> None:
        """A span that is over. Times are seconds since the epoch; `fault`: the code of what went wrong."""
        if not under.sampled:
            return
        if span_id is not None:
            self._ids.next_is(span_id)
        begin = _nanoseconds(min(start, end))  # clocks of two machines may differ
        span = self._tracer.start_span(name, _context_at(under), kind, attributes, start_time=begin)
        if fault is not None:
            fail(span, fault)
        span.end(_nanoseconds(end))

    def begin_request(self, name: str, caller: Place | None, attributes: Attributes) -> "Request":
        """The span of a request, current from now until `Request.end`; in the caller's trace if it names one.

        Whether it is recorded is decided here: a caller's word counts only so many times a second.
        """
        context = None
        if caller is not None:
            context = contexts.set_value(_FROM_CALLER, caller.sampled, _context_at(caller))
        span = self._tracer.start_span(name, context, SERVER, attributes)
        return Request(span, contexts.attach(trace.set_span_in_context(span)))


class Request:
    """A request that is being answered."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, token: Any) -> None:
        self._span = span
        self._token = token

    def end(self, name: str, attributes: Attributes, *, fault: str | None = None) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if fault is not None:
            fail(self._span, fault)
        contexts.detach(self._token)
        self._span.end()


def fail(span: Span, code: str) -> None:
    """The span stands for something that went wrong; its description would be a message, so it has none."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def kind_of(fault: BaseException) -> str:
    """What may be told of an exception: its code or its type."""
    return fault.code.value if isinstance(fault, ServiceError) else type(fault).__name__


def trace_ids(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Puts the current span's ids into a line of the log."""
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        event["trace_id"] = f"{found.trace_id:032x}"
        event["span_id"] = f"{found.span_id:016x}"
    return event


def _context_at(place: Place | None) -> contexts.Context:
    if place is None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    seen = SpanContext(place.trace_id, place.span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(seen))


def _place_of(span: Span) -> Place | None:
    found = span.get_span_context()
    return Place(found.trace_id, found.span_id, found.trace_flags.sampled) if found.is_valid else None


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _named() -> bool:
    """Whether the environment names the service."""
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or f"{SERVICE_NAME}=" in given


def _exporter(endpoint: str | None, seconds: float | None = None) -> OTLPSpanExporter:
    return OTLPSpanExporter(
        endpoint=None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces", timeout=seconds
    )


def not_taken(endpoint: str | None, seconds: float) -> str | None:
    """Why the collector takes no traces, as far as an empty sending shows; None if it does. Blocks."""
    _hush()
    said = _Said()
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http")
    logger.addHandler(said)
    exporter = _exporter(endpoint, seconds)
    try:
        if exporter.export(()) is SpanExportResult.SUCCESS:
            return None
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        logger.removeHandler(said)
    answered = re.search(r"code: \d+, reason: ([\w -]+)|Transient error ([\w -]+) encountered", said.text)
    failed = re.search(r"\[Errno -?\d+\] ([\w ]+)", said.text)
    if answered is not None:
        return f"it answers {answered[1] or answered[2]}"
    return failed[1].lower() if failed is not None else f"no answer within {seconds:g} s"


class _Said(logging.Handler):
    """What the SDK logs of a sending that fails, which is the only way to learn why."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()}\n"


def _hush() -> None:
    """The SDK logs each failed export, with the collector's address; `_Watched` says it once a minute, without."""
    loud = logging.getLogger("opentelemetry")
    loud.propagate = False
    loud.handlers = [logging.NullHandler()]


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id is known beforehand."""

    def __init__(self) -> None:
        self._known = threading.local()

    def next_is(self, span_id: int) -> None:
        """For the span that this thread starts next."""
        self._known.span_id = span_id

    def generate_span_id(self) -> int:
        known: int | None = getattr(self._known, "span_id", None)
        self._known.span_id = None
        return super().generate_span_id() if known is None else known


class _Allowance:
    """So many a second, and a few at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = self._most = BURST if rate else 0.0
        self._seen = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._left + (now - self._seen) * self._rate, self._most)
        self._seen = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class _OwnDecision(Sampler):
    """A trace is recorded whole or not at all. Who decides is the sampler of the environment, asked once for each
    trace that enters; strangers choose neither the number that it judges by nor, beyond an allowance, its answer.
    """

    def __init__(self, chosen: Sampler, allowance: _Allowance) -> None:
        self._chosen = chosen
        self._allowance = allowance

    def should_sample(
        self,
        parent_context: contexts.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,  # noqa: ARG002 - the SDK's signature
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        wanted = contexts.get_value(_FROM_CALLER, parent_context)
        if parent.is_valid and wanted is None:
            decision = Decision.RECORD_AND_SAMPLE if parent.trace_flags.sampled else Decision.DROP
            return SamplingResult(decision, attributes)
        judged = trace_id if wanted is None else secrets.randbits(128)
        result = self._chosen.should_sample(contexts.Context(), judged, name, kind, attributes, links)
        if wanted and result.decision is not Decision.RECORD_AND_SAMPLE and self._allowance.take():
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return result

    def get_description(self) -> str:
        return f"OwnDecision{{{self._chosen.get_description()}}}"


class _Counting(SpanProcessor):
    """What was recorded: more than was sent or lost in sending has been dropped for want of room."""

    def __init__(self, metrics: Metrics) -> None:
        self._made = metrics.trace_spans.labels("recorded")

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - the SDK's signature
        self._made.inc()


class _Watched(SpanExporter):
    """Counts what was sent and what was not, and says in the log that a collector takes nothing."""

    def __init__(self, inner: SpanExporter, metrics: Metrics) -> None:
        self._inner = inner
        self._sent = metrics.trace_spans.labels("sent")
        self._lost = metrics.trace_spans.labels("lost")
        self._told_at: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception as fault:  # noqa: BLE001 - traces may fail in no way that anything else notices
            return self._failed(len(spans), type(fault).__name__)
        if result is not SpanExportResult.SUCCESS:
            return self._failed(len(spans), "refused or not reached")
        self._sent.inc(len(spans))
        return result

    def _failed(self, count: int, reason: str) -> SpanExportResult:
        self._lost.inc(count)
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            log.warning("traces_not_sent", spans=count, reason=reason)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._inner.shutdown()
