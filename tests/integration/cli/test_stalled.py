"""A peer that stops reading is cut after the service closed its connection; a slow one is not."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from tests.support.schema import lay
from tests.support.stack import until

from comfy_api_service.cli import server as cli_server
from comfy_api_service.cli import stalled as module
from comfy_api_service.cli.stalled import Stalled
from comfy_api_service.settings import Settings

LENGTH = 16 * 2**20
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """One large message, then the end of the task, whatever became of the message."""
    del receive
    if scope["type"] == "http":
        head = [(b"content-length", b"%d" % LENGTH), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(LENGTH)})
    else:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(LENGTH)})


def config(*_: object) -> uvicorn.Config:
    return uvicorn.Config(
        app, http="httptools", ws="websockets-sansio", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )  # fmt: skip


@asynccontextmanager
async def served() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    server = uvicorn.Server(config())
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def closed(server: uvicorn.Server) -> bool:
    """Its task has ended and the transport is closed, but the connection is there."""
    connections = server.server_state.connections
    return not server.server_state.tasks and [one.transport.is_closing() for one in connections] == [True]


def asked(port: int, *, upgrade: bool) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    words = ["GET / HTTP/1.1", "Host: x"]
    if upgrade:
        words += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        words += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    peer.sendall("\r\n".join([*words, "", ""]).encode())
    return peer


def run(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("upgrade", [False, True], ids=["http", "websocket"])
def test_a_peer_that_takes_nothing_is_cut(
    loop: Callable[[], asyncio.AbstractEventLoop], *, upgrade: bool
) -> None:
    async def scenario() -> None:
        async with served() as (server, port):
            stalled = Stalled(server.server_state.connections)
            with asked(port, upgrade=upgrade):
                await until(lambda: closed(server))
                stalled.look()
                assert closed(server), "it has time until the next look"
                stalled.look()
                await until(lambda: not server.server_state.connections)

    run(loop, scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_peer_gets_everything(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario() -> None:
        async with served() as (server, port):
            stalled = Stalled(server.server_state.connections)
            with asked(port, upgrade=False) as peer:
                await until(lambda: closed(server))
                (connection,) = server.server_state.connections
                read = 0
                while unsent := connection.transport.get_write_buffer_size():
                    stalled.look()
                    while connection.transport.get_write_buffer_size() >= unsent:
                        read += len(await asyncio.to_thread(peer.recv, 2**18))
                while data := await asyncio.to_thread(peer.recv, 2**20):
                    read += len(data)
            assert read > LENGTH

    run(loop, scenario())


async def test_the_service_looks_after_its_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[uvicorn.Server] = []

    class Server(cli_server._Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(cli_server, "_Server", Server)
    monkeypatch.setattr(cli_server, "_config", config)
    monkeypatch.setattr(cli_server, "start_logs", lambda _: None)
    monkeypatch.setattr(module, "SECONDS", 0.2)
    lay(tmp_path)
    settings = Settings(_env_file=None, data_dir=tmp_path, comfyui_url=("http://127.0.0.1:9",))
    stop = asyncio.Event()
    stopped: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    listening = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(
            cli_server._serve(settings, [listener], stopped, "", listening.set, None, "service")
        )
        await listening.wait()
        with asked(listener.getsockname()[1], upgrade=False):
            await until(lambda: servers[0].server_state.total_requests == 1)
            await until(lambda: not servers[0].server_state.connections)
        stop.set()
        await serving
