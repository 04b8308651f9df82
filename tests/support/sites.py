"""A web server at 127.0.0.1 that answers as those do that callers might name."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from tests.support.pictures import png

PICTURE: Final = png()


@dataclass
class Site:
    """A server at 127.0.0.1; `asked` are the paths, with the name that was asked for."""

    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    silence: asyncio.Event = field(default_factory=asyncio.Event)
    wanted_at_once: int = 1
    """How many must ask for `/together` before the first one is answered."""

    async def answer(self, request: web.Request) -> web.StreamResponse:  # noqa: C901, PLR0912 - a case a fault
        self.asked.append((request.host.partition(":")[0], request.path))
        match request.path:
            case "/picture":
                return web.Response(body=PICTURE, content_type="text/html")
            case "/together":
                if sum(path == "/together" for _, path in self.asked) >= self.wanted_at_once:
                    self.silence.set()
                await self.silence.wait()
                return web.Response(body=PICTURE)
            case "/silent":
                await self.silence.wait()
                return web.Response()
            case "/slow":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(PICTURE[:10])
                await self.silence.wait()
                return response
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(bytes(1 << 16))
            case "/large":
                return web.Response(body=bytes(200_001))
            case "/gzip":
                packed = gzip.compress(bytes(1 << 20))
                return web.Response(body=packed, headers={"Content-Encoding": "gzip"})
            case "/cut":
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"x")
                assert request.transport is not None
                request.transport.abort()
                return response
            case "/loop":
                raise web.HTTPFound("/loop")
            case "/once" | "/twice" | "/thrice" | "/fourth":
                after = {"/once": "/picture", "/twice": "/once", "/thrice": "/twice", "/fourth": "/thrice"}
                raise web.HTTPTemporaryRedirect(after[request.path])
            case "/to":
                raise web.HTTPFound(request.query["place"])
            case _:
                return web.Response(status=404)


@asynccontextmanager
async def site(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await place.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        made.silence.set()
        await runner.cleanup()
