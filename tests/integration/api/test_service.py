"""What every answer has in common, and what the service says of itself."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import SMALL, Client, connected
from tests.support.stack import online, running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator
from comfy_api_service.storage.base import StorageUnavailable

pytestmark = pytest.mark.sqlite

JOBS = "/api/v1/jobs"


async def test_errors_of_the_framework_have_the_envelope(client: Client) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/api/v1/jobs/x/y/z", 404, "NOT_FOUND"),
        ("PATCH", JOBS, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", JOBS, 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/ping", 405, "METHOD_NOT_ALLOWED"),
        ("FROBNICATE", "/ping", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/ws/jobs", 404, "NOT_FOUND"),
    ):
        answer = await client.request(method, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), (method, path)
        assert error["request_id"] == answer.headers["x-request-id"]
        assert error["timestamp"].endswith("Z")
    assert (await client.put(JOBS)).headers["allow"] == "GET, HEAD, POST"
    assert (await client.put(f"{JOBS}/x")).headers["allow"] == "DELETE, GET, HEAD"
    assert (await client.get("/api/v1/generate/batch")).headers["allow"] == "POST"


async def test_request_ids(client: Client) -> None:
    async def given(value: str) -> str:
        return str(
            (await client.get("/ping", headers={b"X-Request-ID": value.encode()})).headers["x-request-id"]
        )

    assert await given("abc-1.2_3") == "abc-1.2_3"
    assert await given("x" * 128) == "x" * 128
    for bad in ("", "x" * 129, "a b", "<script>", "é"):
        assert (await given(bad)).startswith("req_")
    assert (await client.get("/nothing", headers={"X-Request-ID": "me"})).json()["error"][
        "request_id"
    ] == "me"


async def test_head_and_trailing_slash(client: Client) -> None:
    for path in ("/ping", "/ping/", "/health/", "/api/v1/jobs/", "/models/", "/docs/", "/openapi.json"):
        whole, head = await client.get(path), await client.head(path)
        assert (whole.status_code, head.status_code) == (200, 200), path
        assert head.content == b""
        assert head.headers["content-length"] == whole.headers["content-length"]
    missing = await client.head("/nothing")
    assert (missing.status_code, missing.content) == (404, b"")


async def test_an_unhandled_fault_is_told_without_details(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(service.services.jobs, "list", fail)
    monkeypatch.setattr(service.services.submitter, "submit", fail)
    for method in ("GET", "POST"):
        answer = await client.request(method, JOBS, json=SMALL)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
        assert "secret" not in answer.text
        entry = next(one for one in logged if one["event"] == "unhandled_error")
        assert entry["path"] == JOBS
        assert entry["request_id"]
        logged.clear()


async def test_one_line_a_request_and_never_a_prompt(client: Client, logged: list[Any]) -> None:
    job_id = (await client.post(JOBS, json={**SMALL, "prompt": "private wish"})).json()["job_id"]
    await client.post(JOBS, json={"prompt": "private wish", "width": 1})
    await client.get("/health")
    lines = [entry for entry in logged if entry["event"] == "request"]
    assert [(line["log_level"], line["path"], line["status"]) for line in lines] == [
        ("info", JOBS, 202),
        ("info", JOBS, 422),
        ("debug", "/health", 200),
    ]
    assert lines[0]["job_id"] == job_id
    assert lines[0]["request_id"].startswith("req_")
    assert "private" not in json.dumps(logged, default=str)


async def test_figures(client: Client) -> None:
    text = (await client.get("/metrics")).text
    assert 'comfyui_http_requests_total{code="202",endpoint="/api/v1/jobs",method="POST"} 0.0' in text
    await client.post(JOBS, json=SMALL)
    await client.get(f"{JOBS}/job_0123456789ABCDEFGHJKMNPQRS")
    for n in range(20):
        await client.get(f"/nothing/{n}")
        await client.request(f"METHOD{n}", "/ping")
    text = (await client.get("/metrics")).text
    for line in (
        'comfyui_http_requests_total{code="202",endpoint="/api/v1/jobs",method="POST"} 1.0',
        'comfyui_http_requests_total{code="404",endpoint="/api/v1/jobs/{job_id}",method="GET"} 1.0',
        'comfyui_http_requests_total{code="404",endpoint="unmatched",method="GET"} 20.0',
        'comfyui_http_requests_total{code="405",endpoint="/ping",method="OTHER"} 20.0',
        'comfyui_http_request_duration_seconds_count{endpoint="/api/v1/jobs",method="POST"} 1.0',
        "comfyui_http_requests_in_progress 1.0",
        "comfyui_websocket_connections 0.0",
    ):
        assert line in text


async def test_figures_behind_a_token(tmp_path: Path, sim: Simulator) -> None:
    async with (
        running(tmp_path, sim.url, metrics_token="t0ken") as service,
        connected(service.app) as client,
    ):
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "t0ken"}):
            answer = await client.get("/metrics", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/metrics", headers={"Authorization": "Bearer t0ken"})).status_code == 200


async def test_health(client: Client) -> None:
    health = (await client.get("/health")).json()
    assert health["status"] == "healthy"
    assert health["comfyui_status"] == "connected"
    assert health["minio_status"] == health["storage_status"] == "embedded"
    assert (await client.get("/health/live")).json() == {"alive": True}
    assert (await client.get("/health/ready")).json() == {"ready": True}


async def test_a_process_is_ready_for_itself_when_what_all_share_is_away(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise StorageUnavailable("It is away.")

    monkeypatch.setattr(service.services.health._storage, "check", away)
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/health/ready?local=true")).json() == {"ready": True}
    assert (await client.get("/health/ready?local=false")).status_code == 503
    assert (await client.get("/health/ready?local=maybe")).status_code == 422
    app: Any = service.app
    app.drain()
    stopping = await client.get("/health/ready?local=true")
    assert (stopping.status_code, stopping.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")


async def test_models_are_paged_and_filtered(client: Client) -> None:
    every = (await client.get("/models", params={"limit": 100})).json()["models"]
    assert {model["kind"] for model in every} >= {"checkpoints", "loras"}
    seen: list[Any] = []
    cursor = None
    while True:
        page = (
            await client.get("/api/v1/models", params={"limit": 3, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += page["models"]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == every
    some = (await client.get("/models", params={"kind": "checkpoints", "name": "V1-5"})).json()["models"]
    assert [model["name"] for model in some] == ["v1-5-pruned-emaonly.safetensors"]
    assert (await client.get("/models", params={"cursor": "x"})).status_code == 422


async def test_browsers_of_other_origins(tmp_path: Path, sim: Simulator, client: Client) -> None:
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in (await client.get("/ping", headers=preflight)).headers
    settings: dict[str, Any] = {"cors_origins": ("https://a.example",), "cors_headers": ("Content-Type",)}
    async with running(tmp_path / "b", sim.url, **settings) as service, connected(service.app) as other:
        await online(service)
        allowed = await other.options(
            JOBS, headers={**preflight, "Access-Control-Request-Headers": "content-type"}
        )
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        refused = await other.options(JOBS, headers={**preflight, "Origin": "https://b.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "BAD_REQUEST")
        answer = await other.post(JOBS, json=SMALL, headers={"Origin": "https://a.example"})
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


async def _raw(url: str, *pieces: bytes) -> tuple[bytes, int]:
    """What the server answers, and how much of the pieces it took before."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent = 0
    answered = asyncio.create_task(reader.readuntil(b'Z"}}'))
    try:
        for piece in pieces:
            if answered.done():
                break
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 10)
            sent += len(piece)
        return await asyncio.wait_for(answered, 10), sent
    except (ConnectionError, TimeoutError):
        return await answered, sent
    finally:
        writer.close()


HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_body_of_100_mb_is_refused_without_reading_it(url: str) -> None:
    megabyte = b"x" * 2**20
    began = time.monotonic()
    announced, sent = await _raw(url, HEAD + b"Content-Length: 104857600\r\n\r\n", *([megabyte] * 100))
    assert b" 413 " in announced.partition(b"\r\n")[0]
    assert b'"PAYLOAD_TOO_LARGE"' in announced
    assert b"connection: close" in announced.lower()
    assert sent < 20 * 2**20
    chunk = b"100000\r\n" + megabyte + b"\r\n"
    streamed, sent = await _raw(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *([chunk] * 100))
    assert b" 413 " in streamed.partition(b"\r\n")[0]
    assert sent < 20 * 2**20
    assert time.monotonic() - began < 10


async def test_a_body_that_announces_too_much_is_refused_before_it_comes(url: str) -> None:
    answer, _ = await _raw(url, HEAD + b"Content-Length: 104857600\r\nExpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_half_a_body_queues_nothing(url: str, client: Client) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"prompt": "x"}')
    await writer.drain()
    writer.close()
    await asyncio.sleep(0.2)
    assert (await client.get(JOBS)).json()["jobs"] == []
