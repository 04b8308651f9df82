"""An answer to a body that is not wanted: sent at once, then a little more is read and thrown away.

A server that closes a connection with unread bytes in it resets it, and the caller may lose the answer.
"""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 256 * 1024


async def linger(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    last: Message | None = None

    async def hold_back_the_end(message: Message) -> None:
        nonlocal last
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            last = {"type": "http.response.body", "body": b"", "more_body": False}
            message = {**message, "more_body": True}
        await send(message)

    await response(scope, receive, hold_back_the_end)
    read = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while read < LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    break
                read += len(message.get("body", b""))
    except TimeoutError:
        pass
    if last is not None:
        await send(last)
