"""A sender of submissions, in a process of its own: `python -m benchmarks.load`, told what to do by orders.

Connections are kept open; each sends its next request when the answer to the last one is there. Every request
has a seed and an Idempotency-Key of its own.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, cast

import orjson

from benchmarks import orders
from benchmarks.client import request
from benchmarks.servers import HOST

ID_KEY: Final = b'"job_id":"'
ID_LENGTH: Final = 30


def requests(prefix: str, key: str = "") -> Iterator[bytes]:
    """`key`: of an account, where the service asks who calls."""
    known = f"X-API-Key: {key}\r\n".encode() if key else b""
    for number in itertools.count():
        body = orjson.dumps({**request(), "seed": number})
        yield (
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n%b"
            b"Idempotency-Key: %b-%d\r\nContent-Length: %d\r\n\r\n%b"
        ) % (HOST.encode(), known, prefix.encode(), number, len(body), body)


class Sending:
    """What all connections share; `most` is the number of requests, without one they go on until `stop`."""

    def __init__(self, prefix: str, most: int | None, *, keep_ids: bool, key: str = "") -> None:
        self.statuses: Counter[int] = Counter()
        self.ids: list[str] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopped = False
        self._requests = requests(prefix, key)
        self._left = most
        self._open = 0
        self._keep_ids = keep_ids

    def next(self) -> bytes | None:
        if self.stopped or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        self._open += 1
        return next(self._requests)

    def answered(self, answer: bytes) -> None:
        self._open -= 1
        self.statuses[int(answer[9:12])] += 1
        if self._keep_ids:
            begin = answer.find(ID_KEY) + len(ID_KEY)
            self.ids.append(answer[begin : begin + ID_LENGTH].decode())
        if (self._left == 0 or self.stopped) and not self._open and not self.over.done():
            self.over.set_result(None)

    def broken(self) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionError("the server closed a connection"))


class Connection(asyncio.Protocol):
    """One connection. An answer without Content-Length has no body."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # what uvloop gives is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        if len(self._received) < head + 4 + _length(self._received[:head]):
            return
        answer, self._received = self._received, b""
        self._sending.answered(answer)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._sending.broken()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        following = self._sending.next()
        if following is not None and self._transport is not None:
            self._transport.write(following)


def _length(head: bytes) -> int:
    found = head.lower().find(b"content-length:")
    if found < 0:
        return 0
    return int(head[found + 15 :].split(b"\r\n", 1)[0])


async def send(
    ports: list[int],
    prefix: str,
    connections: int,
    count: int | None = None,
    seconds: float | None = None,
    keep_ids: bool = False,
    key: str = "",
) -> dict[str, Any]:
    """`count` requests, or as many as `seconds` allow; the answers by status and the time from first to last.

    The connections are spread over the ports evenly.
    """
    sending = Sending(prefix, count, keep_ids=keep_ids, key=key)
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    opened = [
        (await loop.create_connection(lambda: Connection(sending), HOST, port))[1]
        for _, port in zip(range(connections), itertools.cycle(ports), strict=False)
    ]
    try:
        if seconds is not None:
            await asyncio.wait({sending.over}, timeout=seconds)
            sending.stopped = True
        await sending.over
        took = time.monotonic() - began
    finally:
        for connection in opened:
            connection.close()
    return {
        "seconds": took,
        "statuses": {str(status): number for status, number in sending.statuses.items()},
        "ids": sending.ids,
    }


if __name__ == "__main__":
    orders.run(lambda: orders.obey({"send": send}))
