"""The event socket: first words, order, reconnection under the same id, one socket at a time."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from comfy_api_service.comfyui import socket as module
from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.messages import Message, PreviewFrame, QueueRemaining, Succeeded
from comfy_api_service.comfyui.socket import Session

Connect = Callable[[str], ComfyClient]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

STATUS = json.dumps({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "c"}})


def success(prompt_id: str) -> str:
    return json.dumps({"type": "execution_success", "data": {"prompt_id": prompt_id, "timestamp": 1}})


class Peer:
    """The server's side: what came, how many sockets are open, and a hand on the latest one."""

    def __init__(self, *, greets: bool = True, pongs: bool = True) -> None:
        self.greets = greets
        self.pongs = pongs
        self.ids: list[str] = []
        self.first: list[Any] = []
        self.open = 0
        self.most_open = 0
        self.empty = asyncio.Event()
        self.extensions: list[str | None] = []
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=self.pongs)
        await socket.prepare(request)
        self.ids.append(request.query["clientId"])
        self.extensions.append(request.headers.get("Sec-WebSocket-Extensions"))
        self.open += 1
        self.empty.clear()
        self.most_open = max(self.open, self.most_open)
        try:
            if self.greets:
                await socket.send_str(STATUS)
            self.sockets.put_nowait(socket)
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    self.first.append(frame.json())
        finally:
            self.open -= 1
            if not self.open:
                self.empty.set()
        return socket

    async def latest(self) -> web.WebSocketResponse:
        async with asyncio.timeout(10):
            return await self.sockets.get()


class Listener:
    """What a session told, in order: messages and links."""

    def __init__(self) -> None:
        self.told: list[Message | bool] = []
        self._news = asyncio.Event()

    def hear(self, what: Message | bool) -> None:
        self.told.append(what)
        self._news.set()

    async def until(self, what: Message | bool, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.told.count(what) < times:
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def running(session: Session) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(session.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def session_of(client: ComfyClient, listener: Listener, **options: Any) -> Session:
    return Session(
        client, backend="gpu-1", client_id="c", on_message=listener.hear, on_link=listener.hear, **options
    )


async def test_flags_are_the_first_words_and_messages_come_in_order(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(), Listener()
    session = session_of(connect(await serve(peer.handle)), listener)
    async with running(session):
        socket = await peer.latest()
        for n in range(100):
            await socket.send_str(success(f"p{n}"))
            await socket.send_bytes(b"\0\0\0\1\0\0\0\2" + bytes([n]))
        await listener.until(PreviewFrame(None, "image/png", bytes([99])))
        assert session.connected
        assert session.link == 1
        assert session.heard_at is not None
    pairs = [[Succeeded(f"p{n}"), PreviewFrame(None, "image/png", bytes([n]))] for n in range(100)]
    assert listener.told == [True, QueueRemaining(0), *(m for pair in pairs for m in pair), False]
    assert peer.first == [{"type": "feature_flags", "data": {"supports_preview_metadata": True}}]
    assert peer.extensions == [None], "frames are not compressed"
    assert not session.connected


async def test_it_comes_back_with_the_same_id_and_never_with_two_sockets(
    connect: Connect, serve: Serve
) -> None:
    peer, listener = Peer(), Listener()
    session = session_of(connect(await serve(peer.handle)), listener)
    async with running(session):
        for n in range(4):
            socket = await peer.latest()
            await listener.until(True, n + 1)
            assert session.link == n + 1
            if n % 2:
                await socket.close()
            else:
                session.renew()
                session.renew()
            await listener.until(False, n + 1)
    assert set(peer.ids) == {"c"}
    assert peer.most_open == 1
    links = [what for what in listener.told if isinstance(what, bool)]
    assert links == [True, False] * (len(links) // 2)


async def test_a_cut_without_goodbye_is_noticed_at_once(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(), Listener()
    async with running(session_of(connect(await serve(peer.handle)), listener)):
        socket = await peer.latest()
        await listener.until(True)
        assert socket._req is not None
        transport = socket._req.transport
        assert transport is not None
        transport.abort()
        await listener.until(True, 2)


async def test_it_waits_for_a_server_that_is_not_there_yet(connect: Connect, serve: Serve) -> None:
    refused = asyncio.Event()
    peer, listener = Peer(), Listener()

    async def handle(request: web.Request) -> web.StreamResponse:
        if not refused.is_set():
            refused.set()
            return web.Response(status=503)
        return await peer.handle(request)

    async with running(session_of(connect(await serve(handle)), listener)):
        await listener.until(True)
    assert listener.told[0] is True


async def test_pauses_grow_while_nothing_answers(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            enough.set()
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with running(session_of(connect("http://127.0.0.1:1"), Listener())):
        await enough.wait()
    for pause, longest in zip(pauses, [0.25, 0.5, 1, 2, 4, 5, 5, 5], strict=False):
        assert longest / 2 <= pause <= longest


async def test_a_server_that_does_not_greet_is_not_connected(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(greets=False), Listener()
    session = session_of(connect(await serve(peer.handle)), listener, first_frame=0.1)
    async with running(session):
        await peer.latest()
        await peer.latest()
        assert session.link == 0
        peer.greets = True
        await listener.until(True)
    assert peer.most_open == 1


async def test_a_server_that_closes_before_a_word_is_not_connected(connect: Connect, serve: Serve) -> None:
    closed: list[str] = []
    enough = asyncio.Event()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        closed.append(request.query["clientId"])
        if len(closed) == 3:
            enough.set()
        return socket

    listener = Listener()
    session = session_of(connect(await serve(handle)), listener)
    async with running(session), asyncio.timeout(10):
        await enough.wait()
    assert session.link == 0
    assert listener.told == []


async def test_a_server_that_is_silent_to_pings_is_left(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(pongs=False), Listener()
    async with running(session_of(connect(await serve(peer.handle)), listener, heartbeat=0.2)):
        await listener.until(True)
        await listener.until(False)


async def test_a_fault_of_the_listener_costs_one_message(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(), Listener()

    def hear(message: Message) -> None:
        if message == Succeeded("bad"):
            raise RuntimeError("a fault of the listener")
        listener.hear(message)

    def linked(_up: bool) -> None:
        raise RuntimeError("another fault of the listener")

    client = connect(await serve(peer.handle))
    session = Session(client, backend="gpu-1", client_id="c", on_message=hear, on_link=linked)
    async with running(session):
        socket = await peer.latest()
        for prompt_id in ("bad", "good"):
            await socket.send_str(success(prompt_id))
        await listener.until(Succeeded("good"))
        assert session.link == 1


async def test_malformed_frames_are_counted_and_passed_over(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(), Listener()
    session = session_of(connect(await serve(peer.handle)), listener)
    async with running(session):
        socket = await peer.latest()
        await socket.send_str("{")
        await socket.send_bytes(b"\0")
        await socket.send_str('{"type": "logs"}')
        await socket.send_str(success("p"))
        await listener.until(Succeeded("p"))
    assert session.malformed == 2


async def test_a_frame_beyond_all_bounds_ends_the_connection_only(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FRAME", 10_000)
    peer, listener = Peer(), Listener()
    async with running(session_of(connect(await serve(peer.handle)), listener)):
        socket = await peer.latest()
        await listener.until(True)
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(b"\0\0\0\1\0\0\0\2" + bytes(100_000))
        await listener.until(True, 2)
    assert not any(isinstance(what, PreviewFrame) for what in listener.told)


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "closed before a word"])
async def test_an_outage_is_told_once_with_the_backends_name_and_so_is_its_end(
    connect: Connect, serve: Serve, *, refused: bool
) -> None:
    peer, listener = Peer(), Listener()
    answers = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal answers
        answers += 1
        if answers % 4 == 0:
            return await peer.handle(request)
        if refused:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    with structlog.testing.capture_logs() as logged:
        async with running(session_of(connect(await serve(handle)), listener)):
            for outage in (1, 2):
                socket = await peer.latest()
                await listener.until(True, outage)
                await socket.close()
    told = [(entry["event"], entry["log_level"]) for entry in logged if entry["log_level"] != "debug"]
    assert told[:4] == [("comfyui_socket_failed", "info"), ("comfyui_socket_back", "info")] * 2
    assert sum(entry["event"] == "comfyui_socket_failed" for entry in logged) >= 6
    assert {entry["backend"] for entry in logged} == {"gpu-1"}


async def test_cancellation_closes_the_socket(connect: Connect, serve: Serve) -> None:
    peer, listener = Peer(), Listener()
    async with running(session_of(connect(await serve(peer.handle)), listener)) as task:
        await peer.latest()
        await listener.until(True)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await peer.empty.wait()
    assert listener.told[-1] is False


def test_a_session_needs_an_id(connect: Connect) -> None:
    listener = Listener()
    with pytest.raises(ValueError, match="needs an id"):
        Session(
            connect("http://x"),
            backend="gpu-1",
            client_id="",
            on_message=listener.hear,
            on_link=listener.hear,
        )
