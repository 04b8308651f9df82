"""What the line does wrong is named: not sent, not answered, answered by half."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from comfy_api_service.comfyui import transport, wire
from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BadAnswer, NoAnswer, Unreachable

PROMPT = "8ea8b101-f281-4e46-a911-7eba285a5539"
Connect = Callable[[str], ComfyClient]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
ServeBytes = Callable[[Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]], Awaitable[str]]
Observed = list[tuple[str, str]]


async def submit(client: ComfyClient) -> int:
    return await client.submit(prompt_id=PROMPT, client_id="c", graph={})


async def test_refused_means_that_nothing_was_sent(connect: Connect, observed: Observed) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(Unreachable) as caught:
            await submit(client)
    assert not caught.value.maybe_done
    assert "127" not in str(caught.value)
    assert observed == [("/prompt", "unreachable")]


@pytest.mark.parametrize("url", ["http://nowhere.invalid:8188", "http://[::bad", "http://127.0.0.1:99999"])
async def test_an_address_that_is_none_means_that_nothing_was_sent(connect: Connect, url: str) -> None:
    with pytest.raises(Unreachable):
        await submit(connect(url))


async def test_a_connection_that_does_not_come_in_time(connect: Connect) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            waiting.append(one)
        try:
            with pytest.raises(Unreachable):
                await submit(connect(f"http://127.0.0.1:{full.getsockname()[1]}"))
        finally:
            for one in waiting:
                one.close()


async def test_cut_before_the_answer_means_that_the_prompt_may_be_there(
    connect: Connect, serve_bytes: ServeBytes, observed: Observed
) -> None:
    requests: list[bytes] = []

    async def cut(request: bytes, _: asyncio.StreamWriter) -> None:
        requests.append(request)

    with pytest.raises(NoAnswer) as caught:
        await submit(connect(await serve_bytes(cut)))
    assert caught.value.maybe_done
    assert len(requests) == 1, "a prompt is never sent again blindly"
    assert observed == [("/prompt", "no_answer")]


async def test_a_kept_connection_that_was_closed_is_no_reason_to_send_twice(
    connect: Connect, serve_bytes: ServeBytes
) -> None:
    requests: list[bytes] = []

    async def once(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)

    client = connect(await serve_bytes(once))
    await client.free()
    await asyncio.sleep(0.1)
    await client.free()
    assert len(requests) == 2


async def test_silence_is_no_answer(connect: Connect, serve: Serve) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    client = connect(await serve(silent))
    began = asyncio.get_running_loop().time()
    with pytest.raises(NoAnswer):
        await submit(client)
    assert asyncio.get_running_loop().time() - began < 2


HALF = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhtml",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", HALF)
async def test_half_an_answer_is_a_bad_one(connect: Connect, serve_bytes: ServeBytes, answer: bytes) -> None:
    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    client = connect(await serve_bytes(write))
    for ask in (submit(client), client.queue(), client.system_stats()):
        with pytest.raises(BadAnswer) as caught:
            await ask
        assert caught.value.maybe_done
        assert caught.value.status in {None, 200, 404, 500, 503}


async def test_an_answer_that_drips_for_ever_ends(connect: Connect, serve_bytes: ServeBytes) -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.1)

    client = connect(await serve_bytes(drip))
    async with asyncio.timeout(5):
        with pytest.raises(BadAnswer):
            await client.queue()


async def test_an_endless_answer_is_cut(
    connect: Connect, serve_bytes: ServeBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 100_000)
    written = 0

    async def pour(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while written < 50_000_000:
            writer.write(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            written += 10_000
            await writer.drain()

    with pytest.raises(BadAnswer):
        await connect(await serve_bytes(pour)).queue()
    assert written < 50_000_000


async def test_an_answer_that_says_it_is_endless_is_not_read(
    connect: Connect, serve_bytes: ServeBytes
) -> None:
    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{")
        await writer.drain()

    with pytest.raises(BadAnswer, match="too large"):
        await connect(await serve_bytes(write)).queue()


async def test_redirects_are_not_followed(connect: Connect, serve: Serve, observed: Observed) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/metadata"})

    with pytest.raises(BadAnswer):
        await connect(await serve(elsewhere)).queue()
    assert asked == ["/queue"]
    assert observed == [("/queue", "302")]


async def test_compression_is_not_asked_for_and_cookies_are_not_kept(connect: Connect, serve: Serve) -> None:
    headers: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        headers.append(dict(request.headers))
        response = web.Response()
        response.set_cookie("a", "b")
        return response

    # For an address without a name, aiohttp's own jar keeps nothing either.
    client = connect((await serve(answer)).replace("127.0.0.1", "localhost"))
    await client.free()
    await client.free()
    assert all(h["Accept-Encoding"] == "identity" and "Cookie" not in h for h in headers)


async def test_a_canceled_request_is_told_to_the_observer(
    connect: Connect, serve: Serve, observed: Observed
) -> None:
    asked = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(60)
        return web.Response()

    task = asyncio.create_task(submit(connect(await serve(silent))))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observed == [("/prompt", "canceled")]


async def test_large_answers_are_parsed_off_the_loop(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    read = wire.loads

    def loads(raw: bytes) -> object:
        import threading  # noqa: PLC0415

        threads.append(threading.current_thread().name)
        return read(raw)

    monkeypatch.setattr(wire, "loads", loads)
    size = 10

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"Node": {"doc": "x" * size}})

    client = connect(await serve(answer))
    await client.object_info()
    size = 1_000_000
    assert len((await client.object_info())["Node"]["doc"]) == size
    assert threads[0] == "MainThread"
    assert threads[1] != "MainThread"
