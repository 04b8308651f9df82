"""Server-Sent Events: a stream of notices as text, alive through its comments, resumable by its ids.

Events have no name of their own, so that a browser's `onmessage` gets all of them; `type` tells them apart.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from comfy_api_service.api.answers import dumps
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.events import event
from comfy_api_service.api.listening import End, Listener, Revoked, close
from comfy_api_service.services.views import Done, Durable, Notice, Pictured, Snapshot

HEARTBEAT_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 2000
_BEAT: Final = b": still here\n\n"
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


def line(notice: Notice, base: str) -> bytes:
    """One event; only durable ones have an id, and the snapshot none, so that nothing is skipped."""
    shape = event(notice, base)
    if isinstance(notice, Pictured):
        shape["data"] = base64.b64encode(notice.preview.picture).decode()
    data = b"data: " + dumps(shape) + b"\n\n"
    return b"id: %d\n%b" % (notice.event.seq, data) if isinstance(notice, Durable | Done) else data


class EventStream(Response):
    """An answer that lasts until the job's end."""

    media_type = "text/event-stream"

    def __init__(
        self, notices: AsyncIterator[Notice], base: str, draining: Draining, *, revoked: Revoked
    ) -> None:
        super().__init__()
        self.body = b""
        self.raw_headers = list(_HEADERS)
        self._notices = notices
        self._base = base
        self._draining = draining
        self._revoked = revoked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def tell(notice: Notice) -> None:
            await write(line(notice, self._base))

        async def left() -> None:
            """Returns when the caller has gone; meanwhile shows that the stream lives."""
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        message = await receive()
                except TimeoutError:
                    await listener.say(write, _BEAT)
                    continue
                if message["type"] == "http.disconnect":
                    return

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await write(b"retry: %d\n\n" % RETRY_MILLISECONDS)
        listener = Listener(tell)
        end = await listener.run(self._notices, left=left, draining=self._draining, revoked=self._revoked)
        if end in (End.DONE, End.DRAINING, End.REVOKED):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def after_first(first: Notice, rest: AsyncIterator[Notice]) -> AsyncGenerator[Notice, None]:
    """The notices again, one of which was read to see whether there is anything to stream."""
    try:
        yield first
        async for notice in rest:
            yield notice
    finally:
        await close(rest)


def has_ended(first: Notice, after: int | None) -> bool:
    """True for a listener that comes back with the job's last id: an EventSource would come for ever."""
    return (
        after is not None
        and isinstance(first, Snapshot)
        and first.view.job.finished_at is not None
        and after >= first.view.job.seq
    )
