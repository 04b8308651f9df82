"""Posting to real servers on this machine, which a resolver of the test's own calls public names."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.public_names import Names, certificates, count_as_public

from comfy_api_service.domain.webhook import Trouble
from comfy_api_service.outbound import names, post
from comfy_api_service.outbound.names import LookUp
from comfy_api_service.outbound.post import Poster, open_poster

BODY = b"{}"


@asynccontextmanager
async def server(tls: object = None) -> AsyncIterator[tuple[int, list[str]]]:  # noqa: C901 - a case an answer
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        match request.path:
            case "/taken":
                assert await request.read() == BODY
                return web.Response(status=204)
            case "/away":
                return web.Response(status=307, headers={"Location": "/taken"})
            case "/gone":
                return web.Response(status=410)
            case "/later":
                return web.Response(status=503, headers={"Retry-After": "7"})
            case "/silent":
                await asyncio.sleep(60)
            case "/cut":
                assert request.transport is not None
                request.transport.abort()
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                try:
                    while True:
                        await response.write(bytes(1 << 16))
                except ConnectionError:
                    asked.append("let go")
                    return response
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)  # type: ignore[arg-type]
    await site.start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def inner(seconds: float = 10.0, look_up: LookUp | None = None) -> AsyncIterator[Poster]:
    async with open_poster(allow_private=True, at_once=10, seconds=seconds, look_up=look_up) as poster:
        yield poster


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/taken", 204, None),
        ("/away", 307, Trouble.REDIRECT),
        ("/gone", 410, Trouble.GONE),
        ("/later", 503, Trouble.STATUS),
        ("/broken", 500, Trouble.STATUS),
        ("/silent", None, Trouble.TIMEOUT),
        ("/cut", None, Trouble.CONNECTION),
    ],
)
async def test_each_end_has_its_name(path: str, status: int | None, error: Trouble | None) -> None:
    async with server() as (port, asked), inner(seconds=0.5 if path == "/silent" else 10.0) as poster:
        reply = await poster.post(f"http://127.0.0.1:{port}{path}", BODY, {})
        assert (reply.status, reply.error) == (status, error)
        assert reply.retry_after == ("7" if path == "/later" else None)
        assert set(asked) == {path}


async def test_an_endless_answer_counts_by_its_status_and_is_not_read() -> None:
    async with server() as (port, asked), inner() as poster:
        reply = await poster.post(f"http://127.0.0.1:{port}/endless", BODY, {})
        assert (reply.status, reply.error) == (200, None)
        async with asyncio.timeout(10):
            while "let go" not in asked:  # noqa: ASYNC110 - the server says nothing
                await asyncio.sleep(0.01)


async def test_nobody_listens_and_nobody_knows_the_name() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(f"no such name: {host}:{port}")

    async with server() as (gone, _):
        pass
    async with inner(look_up=unknown) as poster:
        assert (await poster.post(f"http://127.0.0.1:{gone}/", BODY, {})).error is Trouble.CONNECTION
        assert (await poster.post("http://nowhere.example/", BODY, {})).error is Trouble.NAME


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:169.254.169.254"]])
async def test_a_name_that_leads_inside_is_not_asked(found: list[str]) -> None:
    names = Names(inside_example=[found])
    async with open_poster(allow_private=False, at_once=10, look_up=names) as poster:
        assert (await poster.post("https://inside.example/", BODY, {})).error is Trouble.ADDRESS
        assert names.asked == ["inside.example"]
        for url in ("http://inside.example/", "https://127.0.0.1/", "https://inside.example:8443/", "x"):
            assert (await poster.post(url, BODY, {})).error is Trouble.ADDRESS
        assert names.asked == ["inside.example"]


async def test_certificates_are_believed_by_name_and_connections_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, trusting = certificates("a.example")
    names = Names(a_example=[["127.0.0.1"]], b_example=[["127.0.0.1"]])
    async with (
        server(served) as (port, asked),
        open_poster(allow_private=False, at_once=10, look_up=names, tls=trusting) as poster,
    ):
        count_as_public(monkeypatch, post, port)
        for _ in range(3):
            assert (await poster.post("https://a.example/taken", BODY, {})).status == 204
        assert names.asked == ["a.example"]
        assert (await poster.post("https://b.example/taken", BODY, {})).error is Trouble.TLS
        assert len(asked) == 3


async def test_a_name_server_that_hangs_keeps_one_thread_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    asked: list[str] = []

    def slow(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        told.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        async with inner(seconds=0.2) as poster:
            replies = [await poster.post("http://slow.example/", BODY, {}) for _ in range(3)]
            assert {reply.error for reply in replies} == {Trouble.TIMEOUT}
            assert asked == ["slow.example"]
    finally:
        told.set()


async def test_who_asks_for_names_that_nobody_answers_for_waits_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    asked: list[str] = []

    def system(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        if host.endswith("slow.example"):
            told.wait(60)
            raise OSError("no such name")
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", system)
    monkeypatch.setattr(names, "WAIT_SECONDS", 0.2)
    try:
        async with (
            server() as (port, _),
            open_poster(allow_private=True, at_once=100, seconds=2.0) as poster,
        ):
            hanging = [
                asyncio.create_task(poster.post(f"http://h{n}.slow.example/", BODY, {}, asker="a"))
                for n in range(post.LOOK_UPS)
            ]
            await asyncio.sleep(0)
            good = f"http://good.example:{port}/taken"
            assert (await poster.post(good, BODY, {}, asker="b")).status == 204
            errors = Counter([(await one).error for one in hanging])
            most = post.OF_ONE_ASKER
            assert errors == {Trouble.TIMEOUT: most, Trouble.INTERNAL: post.LOOK_UPS - most}
            assert (await poster.post(good, BODY, {}, asker="a")).status == 204
            assert len(asked) == most + 1, "what nobody waits for any more is looked up, or what is known"
    finally:
        told.set()


async def test_a_name_that_waits_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = {name: threading.Event() for name in ("one", "two", "three")}

    def system(host: str, port: int, **_: object) -> list[object]:
        gates[host].wait(60)
        return [(2, 1, 6, "", (f"127.0.0.{len(host)}", port))]

    monkeypatch.setattr(socket, "getaddrinfo", system)
    resolver = names.Names(1)
    try:
        found = [asyncio.create_task(resolver.look_up(name, 80)) for name in gates]
        for gate in gates.values():
            gate.set()
        assert await asyncio.gather(*found) == [["127.0.0.3"], ["127.0.0.3"], ["127.0.0.5"]]
    finally:
        resolver.close()


async def test_an_address_that_is_known_is_checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def system(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", system)
    async with open_poster(allow_private=False, at_once=10) as poster:
        for _ in range(2):
            assert (await poster.post("https://inside.example/", BODY, {})).error is Trouble.ADDRESS
    assert asked == ["inside.example"]


async def test_a_kept_connection_that_was_reset_is_made_anew() -> None:
    """The server has gone away since, and says so only when it is written to."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n" + BODY)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        if connections == 1:
            await reader.read(1)  # of the second request
            at_once = struct.pack("ii", 1, 0)  # closing sends a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()
            return
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, inner() as poster:
        for _ in range(2):
            assert (await poster.post(f"http://127.0.0.1:{port}/", BODY, {})).status == 204
    assert connections == 2
