"""A job that is run again stays in its trace: another attempt beside the first, nothing below what was never told."""

from collections import Counter
from pathlib import Path

import httpx2
import pytest
from tests.support.collector import collector
from tests.support.stack import FAST, ended, online, running, until

from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator

pytestmark = pytest.mark.sqlite
CALLER, ITS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"prompt": "a lighthouse", "steps": 4, "width": 64, "height": 64}


async def test_a_second_attempt_stands_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collector() as collected:
        async with (
            Simulator(FAST) as sim,
            running(tmp_path, sim.url, otel_exporter_otlp_endpoint=collected.url) as service,
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://test") as http,
        ):
            await online(service)
            sim.faults.out_of_memory(times=1)
            answer = await http.post(
                "/api/v1/jobs", json=BODY, headers={"traceparent": f"00-{CALLER}-{ITS_SPAN}-01"}
            )
            job = await ended(service, answer.json()["job_id"])
            await until(lambda: len(collected.named("job attempt")) == 2)
        assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
        spans = collected.of(CALLER)
    known = {span.span_id: span for span in spans}
    assert len(known) == len(spans)
    assert [span for span in spans if span.parent_id not in known] == [
        next(span for span in spans if span.name == "POST /api/v1/jobs")
    ]
    below = Counter(known[span.parent_id].name for span in spans if span.parent_id in known)
    assert below["job submit"] == 4, "two attempts, and the wait before each"
    attempts = sorted((span for span in spans if span.name == "job attempt"), key=lambda span: span.start)
    assert [(one.attributes["comfyui.job.attempt"], one.failed) for one in attempts] == [
        (1, True),
        (2, False),
    ]
    assert attempts[0].attributes["error.type"] == "out of memory"
    assert [span.parent_id for span in spans if span.name == "job requeue"] == [attempts[0].span_id]
    waits = sorted((span for span in spans if span.name == "job wait"), key=lambda span: span.start)
    assert waits[1].start > waits[0].end, "it waited from the loss of the first one"
    assert {span.attributes["comfyui.adopted"] for span in spans if span.name == "job execute"} == {False}
