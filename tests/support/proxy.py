"""A port that passes on to another, which may change, with or without TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.support.valkey import Valkey


class Gate:
    """Lets through what passes, until it is shut for the connections that there are."""

    def __init__(self) -> None:
        self.open = _set()

    def shut(self) -> None:
        """What they send is held back without a word; who comes later passes."""
        self.open.clear()
        self.open = _set()


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@asynccontextmanager
async def passing_on(
    target: Callable[[], Valkey], tls: ssl.SSLContext | None = None, gate: Gate | None = None
) -> AsyncIterator[int]:
    """The number of the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def copy(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event | None
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65_536):
                    if is_open is not None:
                        await is_open.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = target()
        if server.port:
            there = await asyncio.open_connection("127.0.0.1", server.port)
        else:
            there = await asyncio.open_unix_connection(str(server.folder / "socket"))
        is_open = None if gate is None else gate.open
        for pair in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(copy(*pair, is_open))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
