"""What a caller's word about a trace is worth, and what of a fault is reported."""

import json
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from comfy_api_service.telemetry import Metrics, sentry
from comfy_api_service.telemetry.traceparent import Place, place_from, place_of_caller, span_of_attempt
from comfy_api_service.telemetry.tracing import Tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SANE = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (SANE, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_sane_place_is_read_and_written_back(header: str, sampled: bool) -> None:
    place = place_from(header.encode())
    assert place == Place(int(TRACE, 16), int(SPAN, 16), sampled)
    assert place_from(str(place).encode()) == place


@pytest.mark.parametrize(
    "header",
    [
        "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-1", f" {SANE}", f"{SANE}\n",
        f"01-{TRACE}-{SPAN}-01-{'x' * 1000}",
    ],
)  # fmt: skip
def test_anything_else_is_no_place(header: str) -> None:
    assert place_from(header.encode()) is None


def test_a_caller_names_one_place() -> None:
    header = (b"traceparent", SANE.encode())
    assert place_of_caller([(b"accept", b"*/*"), header]) is not None
    assert place_of_caller([header, header]) is None
    assert place_of_caller([]) is None


def test_attempts_have_spans_of_their_own() -> None:
    spans = {span_of_attempt(job, attempt) for job in ("job_1", "job_2") for attempt in (1, 2, 11)}
    assert len(spans) == 6


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracing_of(exporter: SpanExporter, metrics: Metrics | None = None, rate: float = 0.001) -> Tracing:
    return Tracing(
        endpoint=None,
        version="1",
        role="test",
        metrics=metrics or Metrics(),
        callers_per_second=rate,
        exporter=exporter,
    )


def recorded(tracing: Tracing, callers: Iterator[Place | None]) -> int:
    """How many of these requests are recorded."""
    count = 0
    for caller in callers:
        request = tracing.begin_request("GET", caller, {})
        count += tracing.recorded()
        request.end("GET /", {})
    return count


def strangers(count: int, *, trace_id: int | None = None, sampled: bool = True) -> Iterator[Place]:
    for number in range(count):
        yield Place(trace_id or number + 1, 7, sampled)


def test_strangers_cannot_have_their_traces_recorded_at_will(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert recorded(tracing_of(exporter), strangers(500)) == 10
    assert recorded(tracing_of(exporter), strangers(500, sampled=False)) == 0
    assert recorded(tracing_of(exporter, rate=0), strangers(500)) == 0


def test_strangers_cannot_choose_the_number_that_decides(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.02")
    low = 1 << 64  # what a sampler by trace id takes first
    assert recorded(tracing_of(exporter, rate=0), strangers(1000, trace_id=low)) < 100


def test_strangers_cannot_hide(exporter: InMemorySpanExporter) -> None:
    assert recorded(tracing_of(exporter), strangers(5, sampled=False)) == 5


def test_a_trace_is_recorded_whole_or_not_at_all(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = tracing_of(exporter)
    for place in (Place(5, 6, sampled=True), Place(8, 9, sampled=False)):
        with tracing.span("one", under=place):
            assert tracing.here() is not None
            tracing.tell("two", under=tracing.here() or place, start=2.0, end=1.0, span_id=77)
    tracing.close()
    told = [span.to_json() for span in exporter.get_finished_spans()]
    spans = [json.loads(one) for one in told]
    assert [span["name"] for span in spans] == ["two", "one"]
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{5:032x}"}
    assert spans[0]["context"]["span_id"] == f"0x{77:016x}"


def test_a_fault_inside_is_told_by_its_type_alone(exporter: InMemorySpanExporter) -> None:
    tracing = tracing_of(exporter)
    with pytest.raises(ValueError, match="canary"), tracing.span("one"):
        raise ValueError("a canary")
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert "canary" not in span.to_json()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    assert not span.status.is_ok


class Refusing(SpanExporter):
    def __init__(self, *, raising: bool) -> None:
        self.raising = raising

    def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the SDK's signature
        if self.raising:
            raise OSError("canary")
        return SpanExportResult.FAILURE

    def shutdown(self) -> None: ...


@pytest.mark.parametrize("raising", [True, False])
def test_a_collector_that_takes_nothing_is_counted_and_noted_without_its_address(
    raising: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics()
    tracing = tracing_of(Refusing(raising=raising), metrics)
    with tracing.span("one"), tracing.span("two"):
        pass
    tracing.close()
    counts = {
        outcome: metrics.registry.get_sample_value("comfyui_trace_spans_total", {"outcome": outcome})
        for outcome in ("recorded", "sent", "lost")
    }
    assert counts == {"recorded": 2, "sent": 0, "lost": 2}
    shown = capsys.readouterr()
    assert "canary" not in shown.out + shown.err
    assert (shown.out + shown.err).count("traces_not_sent") == 1


def test_of_an_event_only_what_is_known_to_be_harmless_is_sent() -> None:
    frame = {"filename": "a.py", "function": "f", "lineno": 3, "vars": {"prompt": "canary"}, "abs_path": "/canary/a.py",
             "context_line": "canary", "pre_context": ["canary"]}  # fmt: skip
    event = {
        "event_id": "1",
        "level": "error",
        "request": {"url": "canary", "headers": {"X-API-Key": "canary"}},
        "extra": {"sys.argv": ["canary"]},
        "user": {"id": "canary"},
        "breadcrumbs": {"values": ["canary"]},
        "message": "canary",
        "logentry": {"message": "canary"},
        "modules": {"canary": "1"},
        "contexts": {"canary": {}},
        "tags": {"request_id": "req_1", "prompt": "canary"},
        "exception": {
            "values": [{"type": "ValueError", "value": "canary", "stacktrace": {"frames": [frame]},
                        "mechanism": {"data": "canary"}}]
        },
    }  # fmt: skip
    sent = sentry.scrubbed(event, "api")
    assert "canary" not in json.dumps(sent)
    assert sent["tags"] == {"request_id": "req_1", "role": "api"}
    (value,) = sent["exception"]["values"]
    assert value["type"] == "ValueError"
    assert value["stacktrace"]["frames"] == [{"filename": "a.py", "function": "f", "lineno": 3}]
