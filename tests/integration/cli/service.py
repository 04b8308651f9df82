"""A fake of the service, as a server: tests set what each part does."""

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image


def _picture(size: int, form: str) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((size, size), 80).save(out, form)
    return out.getvalue()


JOB = "job_00000000000000000000000001"
PICTURE = _picture(400, "PNG")
PREVIEWS = [base64.b64encode(_picture(64, "JPEG")).decode() for _ in range(30)]


class Server:
    """A fake of the service: tests set what each part does."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self.status = "succeeded"
        self.error: Mapping[str, Any] | None = None
        self.streams: list[list[str]] = [[event("done", 1)]]
        """What each connection to the events gets, the last one for all further ones; see `_events`."""
        self.released = asyncio.Event()
        self.refusal: tuple[int, Mapping[str, Any] | str] | None = None
        self.dropped = 0
        """How many answers to submissions get lost."""
        self.picture_url = "/artifacts/a.png?signature=secret"
        self.picture = PICTURE

    def of(self, path: str) -> list[web.Request]:
        return [request for request in self.requests if request.path == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.requests.append(request)
        if self.refusal is not None:
            status, body = self.refusal
            if isinstance(body, str):
                return web.Response(status=status, text=body, content_type="text/html")
            return web.json_response({"error": body}, status=status, headers={"Retry-After": "7"})
        if request.path == "/api/v1/jobs" and request.method == "POST":
            if self.dropped and request.transport is not None:
                self.dropped -= 1
                request.transport.abort()
            return web.json_response({"job_id": JOB, "status": "queued", "queue_position": 1}, status=202)
        if request.path == "/api/v1/jobs":
            return self._page(request)
        if request.path == f"/api/v1/jobs/{JOB}/events":
            return await self._events(request)
        if request.path == f"/api/v1/jobs/{JOB}/cancel":
            self.status = "canceled"
            return web.json_response(self.job)
        if request.path == f"/api/v1/jobs/{JOB}":
            return web.json_response(self.job)
        return web.Response(body=self.picture)

    @property
    def job(self) -> dict[str, Any]:
        digest = hashlib.sha256(PICTURE).hexdigest()
        artifact = {"url": self.picture_url, "media_type": "image/png", "sha256": digest}
        result = {"artifacts": [artifact]} if self.status == "succeeded" else None
        return {"job_id": JOB, "status": self.status, "result": result, "error": self.error}

    def _page(self, request: web.Request) -> web.Response:
        first = int(request.query.get("cursor", "0"))
        limit = int(request.query["limit"])
        numbers = range(first, min(first + limit, 250))
        after = numbers.stop if numbers.stop < 250 else None
        jobs = [{"job_id": f"job_{n}"} for n in numbers]
        return web.json_response({"jobs": jobs, "next_cursor": after and str(after)})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        pieces = self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]
        if pieces == ["503"]:
            return web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            if piece == "wait":
                await asyncio.sleep(3600)
            if piece == "hold":
                await self.released.wait()
                continue
            if piece == "cut" and request.transport is not None:
                request.transport.abort()
                return response
            await response.write(piece.encode())
        return response


def event(kind: str, seq: int | None = None, **data: Any) -> str:
    head = "" if seq is None else f"id: {seq}\n"
    return f"{head}data: {json.dumps({'type': kind, 'job_id': JOB, **data})}\n\n"


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    fake = Server()
    runner = web.ServerRunner(web.Server(fake.handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()
