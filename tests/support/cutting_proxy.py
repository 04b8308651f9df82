"""A TCP proxy that watches what clients send, and cuts the connection at a word, before or after it went on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum


class Cut(Enum):
    BEFORE = "before the word went on"
    AFTER = "after it went on, its answer is lost"


class Proxy:
    """`cut_at` once; then it lets all pass again."""

    def __init__(self, port: int) -> None:
        """`port`: where to pass connections on to, on the loopback address."""
        self._target = port
        self._word = b""
        self._cut = Cut.AFTER
        self.cuts = 0
        self.port = 0

    def cut_at(self, word: bytes, cut: Cut) -> None:
        self._word, self._cut = word, cut

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.create_task(self._pass(inner_reader, writer))
        try:
            while data := await reader.read(65536):
                if self._word and self._word in data:
                    self._word = b""
                    self.cuts += 1
                    if self._cut is Cut.AFTER:
                        back.cancel()
                        await asyncio.wait((back,))
                        inner_writer.write(data)
                        await inner_reader.read(1)  # it has happened
                    break
                inner_writer.write(data)
                await inner_writer.drain()
        finally:
            back.cancel()
            for one in (writer, inner_writer):
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.transport.abort()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
