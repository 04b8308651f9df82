"""Connections that are closed here while their peer takes nothing: cut, as the system would wait for ever.

A transport that is closed stays until what is unsent has left, up to 64 kB and a message. One that a slow
peer still empties is left alone.
"""

import asyncio
from collections.abc import Collection
from typing import Final, Protocol

SECONDS: Final = 30.0
"""Between two looks. Who took nothing from one to the next is cut: after 30 to 60 s."""


class Connection(Protocol):
    """uvicorn's side of one."""

    @property
    def transport(self) -> asyncio.WriteTransport: ...


class Stalled:
    def __init__(self, connections: Collection[Connection]) -> None:
        """`connections`: those of the server now, kept up to date by it."""
        self._connections = connections
        self._unsent: dict[Connection, int] = {}
        """Those that were closed at the last look, with the bytes that were still to be sent."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            self.look()

    def look(self) -> None:
        closed: dict[Connection, int] = {}
        for connection in tuple(self._connections):
            transport = connection.transport
            if not transport.is_closing():
                continue
            unsent = transport.get_write_buffer_size()
            if unsent >= self._unsent.get(connection, unsent + 1):
                transport.abort()
            else:
                closed[connection] = unsent
        self._unsent = closed
