"""The service on its sockets: uvicorn on this loop, until a stop signal, then drained.

Nothing else starts uvicorn; the choice of its parts stands here alone.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import uvicorn

from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.http import JoiningProtocol
from comfy_api_service.cli.listening import BACKLOG
from comfy_api_service.cli.loop import settle_memory
from comfy_api_service.cli.output import say
from comfy_api_service.cli.pages import pages
from comfy_api_service.cli.stalled import Stalled
from comfy_api_service.cli.starting import raise_file_limit, start_faults, start_logs
from comfy_api_service.cli.stopping import StopSignals
from comfy_api_service.cli.unused import UNUSED_REMEDY, unused_accounts

if TYPE_CHECKING:
    from comfy_api_service.bootstrap.api import Service
    from comfy_api_service.settings import Settings

WEBSOCKETS: Final = "websockets-sansio"
"""uvicorn's WebSocket implementation: least memory for one that waits, and no deprecated parts."""
KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection is kept: longer than clients and proxies keep theirs (mostly 5 and 60 s), for what
one of them sends just as it is closed here is lost."""
LONGEST_MESSAGE: Final = 65_536
"""Bytes of a WebSocket message from a client; clients have next to nothing to say."""

LAST_ANSWERS: Final = 3
"""Seconds that answers and streams have after the drain, in which jobs ended and listeners heard of it."""

Role = Literal["service", "api"]
"""API and worker, or the API alone."""
Beside = Callable[[str], Coroutine[Any, Any, None]]


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own, and with an event for the moment it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def serve(
    settings: "Settings",
    sockets: list[socket.socket],
    *,
    url: str,
    listening: Callable[[], None],
    beside: Beside | None = None,
    role: Role = "service",
    tls: ssl.SSLContext | None = None,
    stop_too: Callable[[], Coroutine[Any, Any, None]] | None = None,
    number: int = 1,
) -> None:
    """Serve until a stop signal, or until `stop_too` returns, then drain. `listening` is called once requests are
    answered; with `tls` by https alone. `number`: which of several processes on the same sockets this is.

    `beside` runs along; a fault of it stops the service and is raised here. Raises `Fault` for what a start
    can meet.
    """
    raise_file_limit()
    async with StopSignals() as stop:
        stopped = asyncio.create_task(_first(stop.wait, stop_too) if stop_too else stop.wait())
        work = asyncio.create_task(
            _serve(settings, sockets, stopped, url, listening, beside, role, tls, number)
        )
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await work
        finally:
            stopped.cancel()
            work.cancel()


async def _first(*waits: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Returns when the first of them does."""
    tasks = [asyncio.create_task(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _serve(
    settings: "Settings",
    sockets: list[socket.socket],
    stopped: "asyncio.Task[None]",
    url: str,
    listening: Callable[[], None],
    beside: Beside | None,
    role: Role,
    tls: ssl.SSLContext | None = None,
    number: int = 1,
) -> None:
    async with _started(settings, role) as service, pages(settings, service.services.metrics, number=number):
        if stopped.done():
            return
        settle_memory()
        server = _Server(_config(service, tls))
        cutting = asyncio.create_task(Stalled(server.server_state.connections).run())
        serving = asyncio.create_task(server.serve(sockets))
        ready = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not serving.done():
            listening()
            if service.unused_accounts and number == 1:
                say(f"warning: {unused_accounts(service.unused_accounts)}. {UNUSED_REMEDY}")
        along = asyncio.create_task(beside(url)) if beside is not None and not serving.done() else None
        try:
            await _until_stopped(stopped, serving, along)
        finally:
            say("stopping …")
            await _end(along)
            await service.drain()
            server.should_exit = True
            cutting.cancel()
            await serving


async def _until_stopped(
    stopped: "asyncio.Task[None]", serving: "asyncio.Task[None]", along: "asyncio.Task[None] | None"
) -> None:
    """Until the signal, or until a part ends by a fault; that `along` is done is no reason to stop."""
    waited: set[asyncio.Task[None]] = {stopped, serving}
    if along is not None:
        waited.add(along)
    while not stopped.done() and not serving.done():
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if along is not None and along.done():
            waited.discard(along)
            along.result()


async def _end(along: "asyncio.Task[None] | None") -> None:
    if along is None or along.done():
        return
    along.cancel()
    with contextlib.suppress(asyncio.CancelledError, Fault):
        await along


@contextlib.asynccontextmanager
async def _started(settings: "Settings", role: Role) -> "AsyncIterator[Service]":
    if role == "api":
        from comfy_api_service.bootstrap.api import api as opened  # noqa: PLC0415 - loads what the role needs
    else:
        from comfy_api_service.bootstrap.service import service as opened  # noqa: PLC0415

    start_logs(settings)
    async with contextlib.AsyncExitStack() as stack:
        with start_faults(settings):
            service = await stack.enter_async_context(opened(settings))
        yield service


def _config(service: "Service", tls: ssl.SSLContext | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        service.app,
        http=JoiningProtocol,
        ws=WEBSOCKETS,
        ws_per_message_deflate=False,
        ws_max_size=LONGEST_MESSAGE,
        ssl_context_factory=None if tls is None else (lambda *_: tls),
        proxy_headers=False,  # `api/client_address.py` has the one rule for them
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
