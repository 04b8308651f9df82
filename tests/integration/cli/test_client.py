"""The client against servers that break off, refuse, and answer late."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.service import JOB, PICTURE, Server, event

from comfy_api_service.cli.client.api import Api, Unreachable
from comfy_api_service.cli.client.making import JobFailed, Made, follow, make
from comfy_api_service.cli.client.refusals import Refused
from comfy_api_service.cli.faults import ExitCode, Fault


class Silent:
    """A display that remembers."""

    def __init__(self, *, previews: bool = False) -> None:
        self.previews = previews
        self.kinds: list[str] = []

    def show(self, event: Mapping[str, Any]) -> None:
        self.kinds.append(event.get("type", event.get("status", "")))


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with Api(server.url, "the-key", pause=0.001) as made:
        yield made


async def test_from_prompt_to_file(server: Server, api: Api, tmp_path: Path) -> None:
    shown = Silent()
    made = await make(api, {"prompt": "a fox"}, shown)
    (path,) = await made.save(tmp_path / "fox.png", force=False)
    assert path.read_bytes() == PICTURE
    assert shown.kinds == ["queued", "done"]
    assert {request.headers["X-API-Key"] for request in server.requests} == {"the-key"}


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(server: Server, api: Api) -> None:
    server.dropped = 2
    await make(api, {"prompt": "a fox"}, Silent())
    keys = [request.headers["Idempotency-Key"] for request in server.of("/api/v1/jobs")]
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_broken_stream_is_taken_up_where_it_ended(server: Server, api: Api) -> None:
    server.streams = [
        ["retry: 2000\n\n", event("snapshot"), event("queued", 1), event("running", 2), "cut"],
        ["503"],
        [": still here\n\n", event("snapshot"), "data: no JSON\n\n"],
        [event("artifact", 3), event("done", 4)],
    ]
    shown = Silent()
    await follow(api, JOB, shown)
    asked = [request.headers.get("Last-Event-ID") for request in server.of(f"/api/v1/jobs/{JOB}/events")]
    assert asked == [None, "2", "2", "2"]
    assert [kind for kind in shown.kinds if kind != "snapshot"] == ["queued", "running", "artifact", "done"]


@pytest.mark.parametrize("previews", [True, False])
async def test_previews_are_asked_for_where_they_are_shown(
    server: Server, api: Api, *, previews: bool
) -> None:
    await follow(api, JOB, Silent(previews=previews))
    (asked,) = server.of(f"/api/v1/jobs/{JOB}/events")
    assert asked.query["previews"] == str(previews).lower()


async def test_a_stream_that_never_holds_is_given_up(server: Server, api: Api) -> None:
    server.streams = [["503"]]
    with pytest.raises(Unreachable):
        await follow(api, JOB, Silent())


async def test_a_failed_job_is_told_with_code_and_remedy(server: Server, api: Api) -> None:
    server.status = "failed"
    server.error = {"code": "OUT_OF_MEMORY", "message": "No memory.", "node_id": "3"}
    with pytest.raises(JobFailed, match=r"OUT_OF_MEMORY: No memory\. \(node 3\)") as told:
        await make(api, {"prompt": "a fox"}, Silent())
    assert told.value.remedy
    assert told.value.exit_code is ExitCode.FAILED


async def test_an_interruption_cancels_the_job(server: Server, api: Api) -> None:
    server.streams = [[event("running", 1), "wait"]]
    running = asyncio.Event()

    class Waiting:
        previews = False

        def show(self, event: Mapping[str, Any]) -> None:
            if event.get("type") == "running":
                running.set()

    making = asyncio.create_task(make(api, {"prompt": "a fox"}, Waiting()))
    await asyncio.wait_for(running.wait(), 10)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert len(server.of(f"/api/v1/jobs/{JOB}/cancel")) == 1


async def test_a_refusal_names_fields_and_what_to_do(server: Server, api: Api) -> None:
    details = {"errors": [{"field": "width", "message": "must be a multiple of 8"}]}
    server.refusal = (422, {"code": "VALIDATION_ERROR", "message": "width: wrong", "details": details})
    with pytest.raises(Refused) as told:
        await api.submit({"prompt": "a fox", "width": 100}, "key")
    assert told.value.message == "VALIDATION_ERROR: width: wrong"
    assert told.value.lines == ("width: must be a multiple of 8",)
    assert told.value.remedy


async def test_a_limit_says_when_to_come_back(server: Server, api: Api) -> None:
    server.refusal = (429, {"code": "QUEUE_LIMIT_EXCEEDED", "message": "The queue is full.", "details": {}})
    with pytest.raises(Refused) as told:
        await api.submit({"prompt": "a fox"}, "key")
    assert "7 s" in told.value.remedy


async def test_a_wrong_key(server: Server, api: Api) -> None:
    server.refusal = (401, {"code": "UNAUTHORIZED", "message": "No.", "details": {}})
    with pytest.raises(Refused) as told:
        await api.job(JOB)
    assert "COMFY_API_KEY" in told.value.remedy


@pytest.mark.parametrize("status", [200, 404, 502])
async def test_another_program_on_the_port(server: Server, api: Api, status: int) -> None:
    server.refusal = (status, "<h1>hello</h1>")
    with pytest.raises(Fault, match="not as this service does") as told:
        await api.job(JOB)
    assert told.value.exit_code is ExitCode.UNREACHABLE


async def test_nothing_listens(server: Server) -> None:
    del server
    async with Api("http://127.0.0.1:9") as api:
        with pytest.raises(Unreachable, match="connection refused") as told:
            await api.job(JOB)
    assert "comfy-api serve" in told.value.remedy


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", "http://host:port", ""])
def test_no_address(address: str) -> None:
    with pytest.raises(Fault, match="no address") as told:
        Api(address)
    assert told.value.exit_code is ExitCode.USAGE


async def test_the_key_goes_to_the_service_alone(server: Server, api: Api, tmp_path: Path) -> None:
    """A result may lie in a store elsewhere: 127.0.0.1 by another name is another origin."""
    server.picture_url = server.url.replace("127.0.0.1", "localhost") + "/artifacts/a.png"
    made = Made(api, await api.job(JOB))
    await made.save(tmp_path / "fox.png", force=False)
    (fetched,) = server.of("/artifacts/a.png")
    assert "X-API-Key" not in fetched.headers


async def test_an_altered_picture_is_refused(server: Server, api: Api, tmp_path: Path) -> None:
    server.picture = PICTURE[:-1]
    made = Made(api, await api.job(JOB))
    with pytest.raises(Fault, match="altered"):
        await made.save(tmp_path / "fox.png", force=False)
    assert not (tmp_path / "fox.png").exists()


async def test_a_list_is_read_page_by_page(server: Server, api: Api) -> None:
    found = await api.jobs(limit=230, filters={"status": ["running", "queued"]})
    assert [job["job_id"] for job in found] == [f"job_{n}" for n in range(230)]
    assert [request.query.getall("limit") for request in server.requests] == [["100"], ["100"], ["30"]]
    assert server.requests[0].query.getall("status") == ["running", "queued"]
    assert len(await api.jobs(limit=1000, filters={})) == 250
