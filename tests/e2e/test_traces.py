"""Traces of the real commands, as a collector receives them."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.collector import Collector, Span, collector
from tests.support.pictures import png
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, api, client, serve, simulator, until_online, worker
from tests.support.schema import copied

QUICK = ("--seconds-per-step", "0.01", "--seconds-per-load", "0")
SLOW = ("--seconds-per-step", "0.15", "--seconds-per-load", "0")
CALLER = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{CALLER}-{CALLERS_SPAN}-01"}
BODY = {"prompt": "a lighthouse", "steps": 3, "width": 64, "height": 64}
LIMIT = 60.0
ATTEMPT = {
    "job attempt": "job submit",
    "job claim": "job attempt",
    "POST /prompt": "job attempt",
    "job start": "job attempt",
    "job execute": "job attempt",
    "job store": "job attempt",
    "GET /view": "job store",
    "storage put": "GET /view",
    "job finish": "job attempt",
}
"""What an attempt that succeeds tells, and below what each stands."""


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


def traced(collected: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}


def until_status(http: httpx2.Client, job_id: str, *wanted: str) -> dict[str, Any]:
    end = time.monotonic() + LIMIT
    while (job := http.get(f"/api/v1/jobs/{job_id}").json())["status"] not in wanted:
        assert time.monotonic() < end, job
        time.sleep(0.2)
    return dict(job)


def tree(spans: list[Span]) -> Counter[tuple[str, str]]:
    """Each span's name with that of the span it stands below; "" is nobody."""
    names = {span.span_id: span.name for span in spans} | {CALLERS_SPAN: "the caller"}
    return Counter((span.name, names.get(span.parent_id, "")) for span in spans)


def check_times(spans: list[Span]) -> None:
    """Nothing begins before what it stands below, and what is not waited for by it ends before it does."""
    known = {span.span_id: span for span in spans}
    for span in spans:
        parent = known.get(span.parent_id)
        assert span.start <= span.end, span
        assert parent is None or parent.start - 0.005 <= span.start, (span, parent)
        if parent is not None and parent.name == "job attempt":
            assert span.end <= parent.end + 0.005, (span, parent)


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tuple(process.output) if line.startswith("{")]


def test_a_job_is_one_trace_from_the_request_to_the_stored_picture(
    tmp_path: Path, collected: Collector
) -> None:
    with (
        simulator(tmp_path, *QUICK) as sim,
        serve(tmp_path, sim.url, WEBHOOK_ALLOW_PRIVATE="true", **traced(collected)) as service,
        client(service) as http,
    ):
        until_online(http)
        upload = http.post("/api/v1/upload", files={"file": ("a.png", png(), "image/png")}).json()[
            "upload_id"
        ]
        body = {**BODY, "image": upload, "strength": 0.5, "webhook_url": f"{collected.url}/webhooks"}
        answer = http.post("/api/v1/jobs", json=body, headers={**HEADERS, "X-Request-ID": "traced-1"})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["job_id"]
        assert until_status(http, job_id, "succeeded", "failed")["status"] == "succeeded"
        wanted = Counter({
            **dict.fromkeys(ATTEMPT.items(), 1),
            ("POST /api/v1/jobs", "the caller"): 1,
            ("job prepare", "POST /api/v1/jobs"): 1,
            ("job submit", "POST /api/v1/jobs"): 1,
            ("job wait", "job submit"): 1,
            ("storage get", "job attempt"): 1,
            ("POST /upload/image", "storage get"): 1,
            ("webhook deliver", "job submit"): 2,
        })  # fmt: skip
        spans = collected.until(lambda got: len(got.of(CALLER)) >= wanted.total() and got.of(CALLER))
        assert service.terminate() == 0
        spans = collected.of(CALLER)
    assert tree(spans) == wanted
    check_times(spans)
    assert len({span.span_id for span in spans}) == len(spans)
    assert not [span for span in spans if span.failed]
    assert {span.attributes["comfyui.job.id"] for span in spans if "comfyui.job.id" in span.attributes} == {
        job_id
    }
    assert {span.attributes.get("comfyui.webhook.event") for span in spans} - {None} == {
        "job.running",
        "job.succeeded",
    }
    assert len(collected.webhooks) == 2
    assert not any(name.lower().startswith("trace") for headers in collected.webhooks for name in headers)
    root = next(span for span in spans if span.name == "POST /api/v1/jobs")
    assert root.attributes["http.response.status_code"] == 202
    assert root.attributes["comfyui.request.id"] == "traced-1"
    assert root.resource["service.name"] == "comfy-api-service"
    told = {line["event"]: line for line in lines(service) if line.get("trace_id") == CALLER}
    assert told["request"]["span_id"] == root.span_id
    assert told["job_ended"]["span_id"] in {span.span_id for span in spans}
    others = {span.name for span in collected.spans if span.trace_id != CALLER}
    assert others == {"POST /api/v1/upload", "storage put", "GET /api/v1/jobs/{job_id}"}


def test_a_trace_goes_on_where_another_worker_takes_over(
    tmp_path: Path, collected: Collector, postgres: PostgresServer
) -> None:
    """API and workers as processes, and the first worker killed while its prompt runs."""
    with copied(postgres) as url:
        shared = {"DATABASE_URL": url, **traced(collected)}
        with (
            simulator(tmp_path, *SLOW) as sim,
            api(tmp_path, **shared) as door,
            client(door) as http,
            worker(tmp_path, "--comfyui-url", sim.url, **shared) as first,
        ):
            until_online(http)
            answer = http.post("/api/v1/jobs", json={**BODY, "steps": 80}, headers=HEADERS)
            job_id = answer.json()["job_id"]
            until_status(http, job_id, "running")
            collected.until(lambda got: {"POST /prompt", "job start"} <= {one.name for one in got.of(CALLER)})
            first.kill()
            with worker(tmp_path, "--comfyui-url", sim.url, **shared):
                assert until_status(http, job_id, "succeeded", "failed")["attempts"] == 1
                collected.until(lambda got: "job attempt" in {span.name for span in got.of(CALLER)})
    spans = collected.of(CALLER)
    wanted = Counter({
        **dict.fromkeys(ATTEMPT.items(), 1),
        ("POST /api/v1/jobs", "the caller"): 1,
        ("job prepare", "POST /api/v1/jobs"): 1,
        ("job submit", "POST /api/v1/jobs"): 1,
        ("job wait", "job submit"): 1,
    })  # fmt: skip
    slowly = ("job storing", "job attempt")  # a result that takes longer to store
    assert tree(spans) - Counter([slowly]) == wanted
    check_times(spans)
    roles = {span.name: span.resource["comfyui.role"] for span in spans}
    assert (roles["job submit"], roles["POST /prompt"], roles["job attempt"]) == ("api", "worker", "worker")
    processes = {span.resource["service.instance.id"] for span in spans}
    assert len(processes) == 3
    executed = next(span for span in spans if span.name == "job execute")
    assert executed.attributes["comfyui.adopted"] is True


LOADED = """
import sys
def look(_):
    with open("modules", "w") as file:
        print(*sorted(sys.modules), sep="\\n", file=file)
    return {"action": "allow"}
"""


def test_what_is_off_is_not_loaded(tmp_path: Path) -> None:
    """Neither the SDKs, nor a line of this program's own that would use them: nothing of it can run."""
    (tmp_path / "looking.py").write_text(LOADED)
    with (
        simulator(tmp_path, *QUICK) as sim,
        serve(tmp_path, sim.url, PROMPT_HOOK="python:looking:look", PYTHONPATH=str(tmp_path)) as service,
        client(service) as http,
    ):
        until_online(http)
        assert http.post("/api/v1/generate", json=BODY, headers=HEADERS).status_code == 201
        assert http.post("/api/v1/jobs", json=BODY).status_code == 202
    loaded = (tmp_path / "modules").read_text().split()
    assert "comfy_api_service.worker.driver" in loaded
    # The web framework loads OpenTelemetry's API, and is told not to use it.
    sdks = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf")
    of_tracing = (*sdks, "sentry_sdk", "requests", "urllib3")
    own = ("comfy_api_service.telemetry.tracing", "comfy_api_service.telemetry.sentry")
    assert [name for name in loaded if name.startswith((*of_tracing, *own)) or name.endswith(".traced")] == []
