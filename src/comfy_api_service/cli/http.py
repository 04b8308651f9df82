"""uvicorn's HTTP protocol, whose answers leave in one piece: it writes head and body one after the other, and each
write is a system call and a packet, which cost an answer more than most of what it took to make it.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD: Final = b"HTTP/1.1 "
"""How the head of an answer begins."""


class Joining:
    """A transport that keeps the head of an answer until what follows is written, at most for the loop's round."""

    __slots__ = ("_head", "_loop", "plain")

    def __init__(self, plain: asyncio.Transport) -> None:
        self.plain: Final = plain
        self._loop = asyncio.get_running_loop()
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        head, self._head = self._head, None
        if head is not None:
            self.plain.writelines((head, data))
        elif data.startswith(HEAD):
            self._head = data
            self._loop.call_soon(self.flush)
        else:
            self.plain.write(data)

    def flush(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            self.plain.write(head)

    def close(self) -> None:
        self.flush()
        self.plain.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


class JoiningProtocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", Joining(transport)))

    def handle_websocket_upgrade(self) -> None:
        """A WebSocket writes its messages whole."""
        joining = cast("Joining", self.transport)
        joining.flush()
        self.transport = joining.plain
        super().handle_websocket_upgrade()
