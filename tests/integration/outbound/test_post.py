"""Posting to real servers on this machine, which a resolver of the test's own calls public names."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.public_names import Names, certificates, count_as_public

from comfy_api_service.domain.webhook import Trouble
from comfy_api_service.outbound import post
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
