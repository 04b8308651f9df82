"""Servers that misbehave as real ones do: by handlers of aiohttp, or byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.transport import open_http

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
Observed = list[tuple[str, str]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http() as session:
        yield session


@pytest.fixture
def observed() -> Observed:
    return []


@pytest.fixture
def connect(http: aiohttp.ClientSession, observed: Observed) -> Callable[[str], ComfyClient]:
    """A client with short time-outs that writes its requests into `observed`."""

    def observer(route: str, status: str, seconds: float) -> None:
        assert seconds >= 0
        observed.append((route, status))

    return lambda url: ComfyClient(url, http, observer=observer, connect_timeout=0.5, read_timeout=0.3)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Answers every request by the handler; gives the address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def serve_bytes() -> AsyncIterator[Callable[[Script], Awaitable[str]]]:
    """Reads the head and the body of one request a connection, then lets the script write."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(script: Script) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                await script(head + body, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
