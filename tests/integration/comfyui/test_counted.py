"""Each status of `comfyui_backend_requests_total` by what it stands for."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError
from comfy_api_service.telemetry import Metrics
from comfy_api_service.telemetry.backends import REQUEST_STATUSES
from comfy_api_service.worker.worker import _observer

ServeBytes = Callable[[Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]], Awaitable[str]]
ANSWERS = {
    "ok": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "no_answer": b"",
    "bad_answer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("status", REQUEST_STATUSES)
async def test_a_request_is_counted_by_how_it_ended(
    http: aiohttp.ClientSession, serve_bytes: ServeBytes, status: str
) -> None:
    metrics = Metrics()
    figures = metrics.add_backend("comfyui-1")
    asked = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        asked.set()
        if status == "canceled":
            await asyncio.Event().wait()
        writer.write(ANSWERS[status])
        await writer.drain()

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        url = nobody if status == "unreachable" else await serve_bytes(answer)
        client = ComfyClient(url, http, observer=_observer(figures), connect_timeout=10, read_timeout=10)
        asking = asyncio.create_task(client.free())
        if status == "canceled":
            await asked.wait()
            asking.cancel()
        [end] = await asyncio.gather(asking, return_exceptions=True)
    expected = {"ok": type(None), "canceled": asyncio.CancelledError}.get(status, BackendError)
    assert isinstance(end, expected)
    counted = {
        one: metrics.registry.get_sample_value(
            "comfyui_backend_requests_total", {"backend": "comfyui-1", "status": one}
        )
        for one in REQUEST_STATUSES
    }
    assert counted == {one: float(one == status) for one in REQUEST_STATUSES}
