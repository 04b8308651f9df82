"""The event socket of one backend, kept open for the life of a process.

It tells early; queue and history decide. It has gone silent for hours in the field while the server worked
on: whoever waits for messages calls `renew` when none come that should.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp
import orjson
import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.messages import MAX_FRAME, Message, parse_binary, parse_text

T = TypeVar("T")

log = structlog.get_logger(__name__)

HEARTBEAT: Final = 15.0
"""Seconds between pings; half of that without an answer closes the socket, so 22.5 s in all."""
FIRST_FRAME: Final = 10.0
"""Seconds in which a server says its `status`; that frame proves that the socket is registered there."""
SHORTEST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 5.0
_FLAGS: Final = orjson.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}).decode()


class Session:
    """One for a backend and process, under one `client_id` that no other living process has.

    `link` counts connections: a run that began on link n and sees n + 1 had a gap, and must ask history.
    `on_message` and `on_link` are called on the loop, in order, without a pause between; they must be quick.
    """

    def __init__(
        self,
        client: ComfyClient,
        *,
        backend: str,
        client_id: str,
        on_message: Callable[[Message], None],
        on_link: Callable[[bool], None],
        heartbeat: float = HEARTBEAT,
        first_frame: float = FIRST_FRAME,
    ) -> None:
        """Times are seconds. `backend` is the name that lines in the log have."""
        if not client_id:
            raise ValueError("a session needs an id: without one, events go to everybody")
        self.client_id = client_id
        self.connected = False
        self.link = 0
        self.malformed = 0
        """Frames that could not be read."""
        self.heard_at: float | None = None
        """`time.monotonic()` of the last frame of any kind."""
        self._client = client
        self._backend = backend
        self._failing = False
        self._on_message = on_message
        self._on_link = on_link
        self._heartbeat = heartbeat
        self._first_frame = first_frame
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._renewing: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Connects and reads, again and again with growing pauses, until canceled."""
        wait = SHORTEST_WAIT / 2
        while True:
            before = self.link
            try:
                await self._connection()
                if self.link == before:
                    self._failed("ClosedWithoutAWord")
            except (aiohttp.ClientError, TimeoutError, OSError) as fault:
                self._failed(type(fault).__name__)
            wait = SHORTEST_WAIT if self.link > before else min(2 * wait, LONGEST_WAIT)
            await asyncio.sleep(wait * secrets.SystemRandom().uniform(0.5, 1))  # spreads reconnections

    def renew(self) -> None:
        """Closes the present socket, so that `run` opens another; `link` then grows."""
        if self._socket is not None and self._renewing is None:
            self._renewing = asyncio.ensure_future(self._socket.close())

    async def _connection(self) -> None:
        """One connection, from its opening to its close: it is closed here before another can open."""
        async with asyncio.timeout(self._client.connect_timeout + self._first_frame):
            socket = await self._client.open_socket(
                self.client_id, heartbeat=self._heartbeat, max_frame=MAX_FRAME
            )
        self._socket = socket
        try:
            await socket.send_str(_FLAGS)
            first = await socket.receive(self._first_frame)
            if first.type is aiohttp.WSMsgType.TEXT:
                self._up()
                self._hear(first)
                await self._read(socket)
        finally:
            self._down()
            renewing, self._socket, self._renewing = self._renewing, None, None
            try:
                if renewing is not None:
                    await renewing
            finally:
                await socket.close()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = await socket.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT and frame.type is not aiohttp.WSMsgType.BINARY:
                return
            self._hear(frame)

    def _hear(self, frame: aiohttp.WSMessage) -> None:
        self.heard_at = time.monotonic()
        if frame.type is aiohttp.WSMsgType.TEXT:
            message = parse_text(frame.data, self._count_malformed)
        else:
            message = parse_binary(frame.data, self._count_malformed)
        if message is not None:
            self._tell(self._on_message, message)

    def _tell(self, listener: Callable[[T], None], news: T) -> None:
        try:
            listener(news)
        except Exception:
            # A fault of the listener must not cost the other prompts of this backend their events.
            log.exception("comfyui_listener_failed", news=type(news).__name__)

    def _count_malformed(self) -> None:
        self.malformed += 1

    def _failed(self, fault: str) -> None:
        """Told once an outage; at debug each time that it fails again."""
        say = log.debug if self._failing else log.info
        say("comfyui_socket_failed", backend=self._backend, fault=fault, link=self.link)
        self._failing = True

    def _up(self) -> None:
        self.link += 1
        if self._failing:
            self._failing = False
            log.info("comfyui_socket_back", backend=self._backend, link=self.link)
        self.connected = True
        self._tell(self._on_link, True)

    def _down(self) -> None:
        if self.connected:
            self.connected = False
            self._tell(self._on_link, False)
