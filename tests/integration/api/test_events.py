"""Listeners: Server-Sent Events and WebSockets, over a real server."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter
from tests.support.api import SMALL, serving
from tests.support.stack import FAST, SLOW, ended, online, running, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from comfy_api_service.api.schemas.events import AnyEvent
from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator

JOBS = "/api/v1/jobs"
ABSENT = "job_0123456789ABCDEFGHJKMNPQRS"
EVENT: TypeAdapter[Any] = TypeAdapter(AnyEvent)
DURABLE = ("queued", "running", "requeued", "artifact", "done")

pytestmark = pytest.mark.usefixtures("carrier")


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Slow enough to be watched; the service over it is the one of all tests."""
    async with Simulator(SLOW) as simulator:
        yield simulator


@pytest.fixture
async def at(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(service.app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def submit(client: httpx2.AsyncClient, **more: Any) -> str:
    found: str = (await client.post(JOBS, json={**SMALL, **more})).json()["job_id"]
    return found


async def submit_in_line(client: httpx2.AsyncClient, *, seconds: int, **more: Any) -> str:
    """A job behind another one that keeps the backend busy, so that listeners are there before it starts."""
    await submit(client, steps=round(seconds / SLOW.seconds_per_step))
    return await submit(client, **more)


async def read_stream(
    client: httpx2.AsyncClient,
    job_id: str,
    *,
    stop_at: str = "done",
    heard: Callable[[], None] | None = None,
    **options: Any,
) -> list[tuple[int | None, dict[str, Any]]]:
    """(id, event) of each event, up to one of the type `stop_at`; `heard` is called after each."""
    told: list[tuple[int | None, dict[str, Any]]] = []
    async with client.stream("GET", f"{JOBS}/{job_id}/events", **options) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        number = None
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                EVENT.validate_python(event)
                told.append((number, event))
                number = None
                if heard is not None:
                    heard()
                if event["type"] == stop_at != "done":
                    break
    return told


async def read_socket(url: str) -> list[dict[str, Any]]:
    """Every event until the end; a preview's picture under `picture`."""
    told: list[dict[str, Any]] = []
    async with connect(url.replace("http", "ws", 1), max_size=None) as socket:
        async for message in socket:  # ends at a close with 1000, and raises at any other
            if isinstance(message, bytes):
                told[-1]["picture"] = message
                continue
            event = json.loads(message)
            EVENT.validate_python(event)
            told.append(event)
    assert socket.close_code == 1000
    return told


async def test_a_stream_from_snapshot_to_end(at: httpx2.AsyncClient, sim: Simulator) -> None:
    sim.faults.hang()  # nothing happens before the snapshot
    told = await read_stream(at, await submit(at, steps=6), heard=sim.faults.resume)
    kinds = [event["type"] for _, event in told]
    assert kinds[0] == "snapshot"
    assert kinds[-1] == "done"
    assert {"running", "progress", "preview", "artifact"} <= set(kinds)
    assert [number for number, _ in told if number] == [2, 3, 4]
    assert all((number is not None) == (event["type"] in DURABLE) for number, event in told)
    done = told[-1][1]
    assert done["job"]["result"]["artifacts"][0]["url"].startswith(str(at.base_url))
    preview = next(event for _, event in told if event["type"] == "preview")
    assert len(base64.b64decode(preview["data"])) == preview["bytes"]


async def test_a_listener_that_comes_back(at: httpx2.AsyncClient, service: Service) -> None:
    job_id = await submit(at)
    await ended(service, job_id)

    async def numbers(**options: Any) -> list[int]:
        return [number for number, _ in await read_stream(at, job_id, **options) if number]

    assert await numbers() == [4]
    assert await numbers(headers={"Last-Event-ID": "1"}) == [2, 3, 4]
    assert await numbers(params={"last_event_id": 2}) == [3, 4]
    for knows in ({"headers": {"Last-Event-ID": "4"}}, {"params": {"last_event_id": 9}}):
        answer = await at.get(f"{JOBS}/{job_id}/events", **knows)
        assert answer.status_code == 204


@pytest.mark.sqlite
async def test_previews_can_be_switched_off(at: httpx2.AsyncClient) -> None:
    told = await read_stream(at, await submit(at, steps=6), params={"previews": "false"})
    assert "preview" not in [event["type"] for _, event in told]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Last-Event-ID": "x"}}, 422),
        ({"params": {"last_event_id": -1}}, 422),
        ({"params": {"previews": "maybe"}}, 422),
        ({}, 404),
    ],
)
@pytest.mark.sqlite
async def test_a_stream_that_is_refused(at: httpx2.AsyncClient, options: dict[str, Any], status: int) -> None:
    assert (await at.get(f"{JOBS}/{ABSENT}/events", **options)).status_code == status


@pytest.mark.sqlite
async def test_the_latest_preview(at: httpx2.AsyncClient) -> None:
    job_id = await submit(at, steps=20)
    assert (await at.get(f"{JOBS}/{job_id}/preview")).status_code == 404
    await read_stream(at, job_id, stop_at="preview")
    job = (await at.get(f"{JOBS}/{job_id}")).json()
    answer = await at.get(job["preview_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")


async def test_a_socket_from_snapshot_to_end(at: httpx2.AsyncClient) -> None:
    job_id = await submit(at, steps=6)
    told = await read_socket(f"{at.base_url}/ws/jobs/{job_id}")
    kinds = [event["type"] for event in told]
    assert (kinds[0], kinds[-1]) == ("snapshot", "done")
    preview = next(event for event in told if event["type"] == "preview")
    assert len(preview["picture"]) == preview["bytes"]
    again = await read_socket(f"{at.base_url}/ws/jobs/{job_id}?last_event_id=2&previews=false")
    assert [event["type"] for event in again] == ["snapshot", "artifact", "done"]


async def test_one_socket_for_all_jobs(at: httpx2.AsyncClient) -> None:
    before = await submit(at)
    async with connect(f"{at.base_url}/ws/jobs?previews=false".replace("http", "ws", 1)) as socket:
        assert json.loads(await socket.recv())["job_id"] == before
        after = await submit(at)
        ends: set[str] = set()
        async with asyncio.timeout(20):
            while ends != {before, after}:
                event = json.loads(await socket.recv(decode=True))
                if event["type"] == "done":
                    ends.add(event["job_id"])


async def _code(socket: ClientConnection) -> tuple[int, str]:
    await asyncio.wait_for(socket.wait_closed(), 10)
    return socket.close_code or 0, socket.close_reason or ""


@pytest.mark.sqlite
async def test_close_codes_and_denied_upgrades(at: httpx2.AsyncClient, service: Service) -> None:
    ws = str(at.base_url).replace("http", "ws", 1)
    async with connect(f"{ws}/ws/jobs/{ABSENT}") as socket:
        assert await _code(socket) == (4404, "There is no such job.")
    for path, status, code in (
        ("/ws/nothing", 404, "NOT_FOUND"),
        ("/api/v1/jobs", 404, "NOT_FOUND"),
        (f"/ws/jobs/{ABSENT}?last_event_id=x", 422, "VALIDATION_ERROR"),
        ("/ws/jobs?previews=2", 422, "VALIDATION_ERROR"),
    ):
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"{ws}{path}")
        response = denied.value.response
        assert response.status_code == status, path
        assert response.body is not None
        assert json.loads(response.body)["error"]["code"] == code
        assert response.headers["x-request-id"].startswith("req_")
    with pytest.raises(InvalidStatus) as denied:
        await connect(f"{ws}/ws/jobs", origin="https://evil.example")  # type: ignore[arg-type]
    assert denied.value.response.status_code == 403
    own = str(at.base_url)
    async with connect(f"{ws}/ws/jobs", origin=own) as socket:  # type: ignore[arg-type]
        assert service.services.metrics.websockets._value.get() == 1


@pytest.mark.sqlite
async def test_a_stop_closes_sockets_and_streams_with_a_reason(
    at: httpx2.AsyncClient, service: Service
) -> None:
    job_id = await submit(at, steps=100)
    stream = asyncio.create_task(read_stream(at, job_id))
    async with connect(f"{at.base_url}/ws/jobs/{job_id}".replace("http", "ws", 1)) as socket:
        assert json.loads(await socket.recv())["type"] == "snapshot"
        app: Any = service.app
        app.drain()
        while socket.close_code is None:
            try:
                await asyncio.wait_for(socket.recv(), 5)
            except ConnectionClosed:
                break
        assert (await _code(socket))[0] == 1012
        assert "last_event_id" in (await _code(socket))[1]
    told = await asyncio.wait_for(stream, 10)
    assert "done" not in [event["type"] for _, event in told]


async def _slow_socket(url: str) -> str:
    async with connect(url.replace("http", "ws", 1), max_queue=1, max_size=None) as socket:
        last = ""
        async for message in socket:
            if isinstance(message, str):
                last = json.loads(message)["type"]
            await asyncio.sleep(0.05)
        return last


async def _returning_stream(client: httpx2.AsyncClient, job_id: str) -> str:
    """Leaves at the first `running` and comes back with its id."""
    first = await read_stream(client, job_id, stop_at="running")
    last = max((number for number, _ in first if number), default=0)
    rest = await read_stream(client, job_id, headers={"Last-Event-ID": str(last)})
    assert [number for number, _ in rest if number] == list(range(last + 1, rest[-1][1]["seq"] + 1))
    return str(rest[-1][1]["type"])


async def test_fifty_listeners_on_one_job_all_hear_the_end(at: httpx2.AsyncClient) -> None:
    limits = httpx2.Limits(max_connections=100)
    async with httpx2.AsyncClient(base_url=at.base_url, limits=limits, timeout=30) as many:
        job_id = await submit_in_line(at, seconds=4, steps=8)

        async def streamed() -> str:
            return str((await read_stream(many, job_id))[-1][1]["type"])

        async def socketed() -> str:
            return str((await read_socket(f"{at.base_url}/ws/jobs/{job_id}"))[-1]["type"])

        lasts = await asyncio.gather(
            *(streamed() for _ in range(13)),
            *(socketed() for _ in range(12)),
            *(_slow_socket(f"{at.base_url}/ws/jobs/{job_id}") for _ in range(13)),
            *(_returning_stream(many, job_id) for _ in range(12)),
        )
    assert lasts == ["done"] * 50


@pytest.mark.sqlite
async def test_nothing_stays_behind_when_listeners_leave(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.stall()
        async with serving(service.app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
            job_id = await submit(client)
            for _ in range(5):
                await read_stream(client, job_id, stop_at="snapshot")
                async with connect(f"{url}/ws/jobs/{job_id}".replace("http", "ws", 1)) as socket:
                    await socket.recv()
            gauge = service.services.metrics.websockets._value
            await until(lambda: not service.services.watcher._waiting and gauge.get() == 0)
