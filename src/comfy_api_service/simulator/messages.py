"""Frames to the sockets: one queue, one publisher, in order, as ComfyUI does it.

A client id has at most one socket: the later one takes over. Nothing here knows what a frame means.
"""

import asyncio
import contextlib
import dataclasses
import json
import struct
from typing import Any

from aiohttp import web

from .encoding import encode
from .frame_faults import Frame, FrameFaults
from .record import Record

PREVIEW = 1
PREVIEW_WITH_METADATA = 4
JPEG, PNG = 1, 2
MEDIA_TYPES = {JPEG: "image/jpeg", PNG: "image/png"}
CROWDED = 10_000
"""With so many frames waiting for slow sockets, passing ones are dropped: memory stays bounded."""
PASSING = frozenset({"progress", "progress_state", "preview"})


@dataclasses.dataclass(slots=True)
class Client:
    """A socket and what its client said that it can do."""

    socket: web.WebSocketResponse
    features: dict[str, Any] = dataclasses.field(default_factory=dict)


class Hub:
    """The connected clients of one life of the server."""

    def __init__(self, faults: FrameFaults, record: Record, gate: asyncio.Event) -> None:
        self._faults = faults
        self._record = record
        self._gate = gate
        self._queue: asyncio.Queue[Frame] = asyncio.Queue()
        self.clients: dict[str, Client] = {}
        self.all_sockets: set[web.WebSocketResponse] = set()

    def join(self, sid: str, socket: web.WebSocketResponse) -> Client:
        client = Client(socket)
        self.clients[sid] = client
        self.all_sockets.add(socket)
        return client

    def leave(self, sid: str, socket: web.WebSocketResponse) -> None:
        # The closing socket takes its id out even if a later one has it by now: so do the recorded versions.
        self.clients.pop(sid, None)
        self.all_sockets.discard(socket)

    def supports(self, sid: str | None, feature: str) -> bool:
        return sid in self.clients and self.clients[sid].features.get(feature) is True

    def send(self, event: str, data: dict[str, Any], sid: str | None = None) -> None:
        """Queue a text frame for one client id, or for everybody."""
        if event in PASSING and self._queue.qsize() > CROWDED:
            return
        text = encode({"type": event, "data": data}).decode()
        self._queue.put_nowait(Frame(event, text, sid))

    def send_picture(self, kind: int, picture: bytes, sid: str | None) -> None:
        """A picture in the older form, without any word of whose it is."""
        self._binary(struct.pack(">II", PREVIEW, kind) + picture, sid)

    def send_preview(self, kind: int, picture: bytes, metadata: dict[str, Any], sid: str | None) -> None:
        """A picture in the newer form; only for clients that asked for it."""
        header = json.dumps(metadata | {"image_type": MEDIA_TYPES[kind]}).encode()
        self._binary(struct.pack(">II", PREVIEW_WITH_METADATA, len(header)) + header + picture, sid)

    def _binary(self, payload: bytes, sid: str | None) -> None:
        if self._queue.qsize() <= CROWDED:
            self._queue.put_nowait(Frame("preview", payload, sid))

    async def publish(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self._gate.wait()
            if self._faults.holds:
                try:
                    frame = await asyncio.wait_for(self._queue.get(), 0.1)
                except TimeoutError:
                    ready = self._faults.flush()
                else:
                    ready = self._faults.apply(frame)
            else:
                frame = await self._queue.get()
                await self._gate.wait()
                ready = self._faults.apply(frame) if self._faults.active else [frame]
            for each in ready:
                await self._deliver(each)

    async def send_now(self, sid: str, event: str, data: dict[str, Any]) -> None:
        """A frame that goes before the queued ones: the greeting of a new socket."""
        frame = Frame(event, encode({"type": event, "data": data}).decode(), sid)
        for each in self._faults.apply(frame) if self._faults.silent else [frame]:
            await self._deliver(each)

    async def _deliver(self, frame: Frame) -> None:
        if frame.sid is None:
            targets = list(self.clients.values())
        elif frame.sid in self.clients:
            targets = [self.clients[frame.sid]]
        else:
            return
        for client in targets:
            with contextlib.suppress(ConnectionError, RuntimeError):
                if isinstance(frame.payload, str):
                    await client.socket.send_str(frame.payload)
                else:
                    await client.socket.send_bytes(frame.payload)
                self._record.frames_sent += 1

    def abort(self) -> None:
        """Cut every socket without a word, as a lost network does."""
        for socket in list(self.all_sockets):
            request = socket._req  # noqa: SLF001 - aiohttp has no public way to cut a socket
            if request is not None and request.transport is not None:
                request.transport.abort()
        self.clients.clear()
        self.all_sockets.clear()
