"""A prompt hook of a test, as a server on a real port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from tests.support.answering import answering

Respond = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


class HookServer:
    """`respond` says what it answers; what it was asked is kept."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.respond: Respond = lambda _: web.json_response({"action": "allow"})
        self.waiting = asyncio.Event()
        self.elsewhere = 0
        """Requests that came to another path."""

    def answers(self, document: Any) -> None:
        self.respond = lambda _: web.json_response(document)

    def hangs(self) -> None:
        async def never(_: dict[str, Any]) -> web.StreamResponse:
            self.waiting.set()
            await asyncio.Event().wait()
            raise AssertionError

        self.respond = never

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/check":
            self.elsewhere += 1
            return web.json_response({"action": "allow"})
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        found = self.respond(self.asked[-1])
        return found if isinstance(found, web.StreamResponse) else await found


@asynccontextmanager
async def hook_server() -> AsyncIterator[HookServer]:
    server = HookServer()
    async with answering(server.handle) as url:
        server.url = f"{url}/check"
        yield server
