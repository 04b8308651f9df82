"""A file that ends early is never taken for a whole one."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import Truncated
from comfy_api_service.comfyui.messages import FileRef

Connect = Callable[[str], ComfyClient]
ServeBytes = Callable[[Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]], Awaitable[str]]
REF = FileRef("a.png", "", "output")


async def read(client: ComfyClient) -> bytes:
    async with client.view(REF) as stream:
        return b"".join([chunk async for chunk in stream.chunks()])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 60, 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n" + b"x" * 60 + b"\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 60, None),
    ],
)
async def test_a_file_cut_short_is_truncated(
    connect: Connect,
    serve_bytes: ServeBytes,
    observed: list[tuple[str, str]],
    answer: bytes,
    expected: int | None,
) -> None:
    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    with pytest.raises(Truncated) as caught:
        await read(connect(await serve_bytes(write)))
    assert caught.value.received <= 60
    assert caught.value.expected == expected
    assert observed == [("/view", "truncated")]


async def test_a_file_that_stops_coming_is_truncated(connect: Connect, serve_bytes: ServeBytes) -> None:
    async def stop(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 60)
        await writer.drain()
        await asyncio.sleep(60)

    with pytest.raises(Truncated):
        await read(connect(await serve_bytes(stop)))


async def test_a_slow_file_is_not_cut_while_it_comes(connect: Connect, serve_bytes: ServeBytes) -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
        for _n in range(12):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    assert await read(connect(await serve_bytes(drip))) == b"x" * 12


async def test_a_reader_that_leaves_early_leaves_nothing_behind(
    connect: Connect, serve_bytes: ServeBytes
) -> None:
    async def pour(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    client = connect(await serve_bytes(pour))
    async with client.view(REF) as stream:
        async for chunk in stream.chunks():
            assert chunk
            break


async def test_the_length_of_a_packed_file_is_unknown(connect: Connect, serve_bytes: ServeBytes) -> None:
    packed = gzip.compress(b"x")

    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        writer.write(head.encode() + packed)
        await writer.drain()

    assert await read(connect(await serve_bytes(write))) == b"x"
