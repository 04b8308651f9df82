"""Thousands of WebSocket listeners in a process of their own: `python -m benchmarks.ears`, told by orders.

Frames are read, not understood: each event carries the moment of its publishing, found by its key.
"""

import asyncio
import base64
import gc
import os
import socket
import time
from typing import Any, Final, cast

from benchmarks import orders
from benchmarks.harness import percentile
from benchmarks.servers import HOST

AT_ONCE: Final = 50
LIMIT_SECONDS: Final = 120.0
LAST_SECONDS: Final = 5.0
STAMP: Final = b'"message":"'
TEXT, BINARY, PING, PONG, CLOSE = 1, 2, 9, 10, 8
SMALL_BUFFER: Final = 4096


class Ear(asyncio.Protocol):
    """One listener; `first` is done when the first event, the snapshot, is there."""

    def __init__(self, path: str, latencies: list[float]) -> None:
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._path = path
        self._latencies = latencies
        self._upgraded = False
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # what uvloop gives is no subclass
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._upgraded:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(f"the upgrade was answered {head[:40]!r}")
                return
            self._upgraded, self._received = True, rest
        while frame := self._frame():
            self._take(*frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")

    def _fail(self, why: str) -> None:
        if not self.first.done():
            self.first.set_exception(ConnectionError(why))

    def _frame(self) -> tuple[int, bytes] | None:
        """The next whole frame; a server does not mask."""
        received = self._received
        if len(received) < 2:
            return None
        length, begin = received[1], 2
        if length == 126:
            length, begin = int.from_bytes(received[2:4]), 4
        elif length == 127:
            length, begin = int.from_bytes(received[2:10]), 10
        if len(received) < begin + length:
            return None
        self._received = received[begin + length :]
        return received[0] & 15, received[begin : begin + length]

    def _take(self, code: int, payload: bytes) -> None:
        if code == TEXT:
            begin = payload.find(STAMP)
            if begin >= 0:
                stamp = payload[begin + len(STAMP) : payload.index(b'"', begin + len(STAMP))]
                self._latencies.append((time.monotonic_ns() - int(stamp)) / 1e9)
            if not self.first.done():
                self.first.set_result(None)
        elif code == PING and self.transport is not None:
            self.transport.write(bytes((128 | PONG, 128 | len(payload), 0, 0, 0, 0)) + payload)


class Ears:
    def __init__(self) -> None:
        self._latencies: list[float] = []
        self._listening: list[Ear] = []
        self._deaf: Ear | None = None

    async def listen(self, port: int, names: list[str]) -> int:
        """One listener a name; returns when each has its first event."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with room:
                self._listening.append(await self._open(port, name))

        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*(one(name) for name in names))
        gc.collect()
        gc.freeze()
        return len(self._listening)

    async def latencies(self, expected: int) -> dict[str, Any]:
        """Of the events since the last time, in seconds; waits for as many as are expected, but not for long."""
        until = time.monotonic() + LAST_SECONDS
        while len(self._latencies) < expected and time.monotonic() < until:  # noqa: ASYNC110 - one look, not 5 000 signals
            await asyncio.sleep(0.01)
        heard = self._latencies.copy()
        self._latencies.clear()
        if not heard:
            return {"events": 0}
        return {
            "events": len(heard),
            "p50": percentile(heard, 50),
            "p99": percentile(heard, 99),
            "most": max(heard),
        }

    async def stop_reading(self, port: int, name: str) -> None:
        """One more listener, that takes its first event and then nothing any more."""
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, (HOST, port))
        self._deaf = await self._open(port, name, one)
        if self._deaf.transport is not None:
            self._deaf.transport.pause_reading()

    async def leave(self) -> None:
        """The one that does not read goes."""
        if self._deaf is not None and self._deaf.transport is not None:
            self._deaf.transport.abort()

    async def _open(self, port: int, name: str, one: socket.socket | None = None) -> Ear:
        where = {"host": HOST, "port": port} if one is None else {"sock": one}
        ear = Ear(f"/ws/jobs/{name}", self._latencies if one is None else [])
        await asyncio.get_running_loop().create_connection(lambda: ear, **where)
        await ear.first
        return ear


def main() -> None:
    ears = Ears()
    handlers: dict[str, orders.Handler] = {
        "listen": ears.listen,
        "latencies": ears.latencies,
        "stop_reading": ears.stop_reading,
        "leave": ears.leave,
    }
    orders.run(lambda: orders.obey(handlers))


if __name__ == "__main__":
    main()
