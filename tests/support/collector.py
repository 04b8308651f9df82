"""Collectors as servers: one that takes traces by OTLP over HTTP, one that takes Sentry's events."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

LIMIT = 30.0


@dataclass(frozen=True)
class Span:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: float
    end: float
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What was received; bodies are kept as they came, to be searched."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    webhooks: list[dict[str, str]] = field(default_factory=list)
    """Headers of what came to `/webhooks`."""
    delivered: list[bytes] = field(default_factory=list)
    """Bodies of it."""
    rebuff: str = ""
    """What a receiver at `/webhooks/refusing` answers with its 500."""
    _refusing: bool = False

    @property
    def dsn(self) -> str:
        return self.url.replace("http://", "http://0123456789abcdef@") + "/7"

    def named(self, name: str) -> list[Span]:
        return [span for span in tuple(self.spans) if span.name == name]

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in tuple(self.spans) if span.trace_id == trace_id]

    def until(self, condition: Callable[["Collector"], Any]) -> Any:
        end = time.monotonic() + LIMIT
        while not (found := condition(self)):
            assert time.monotonic() < end, sorted({span.name for span in self.spans})
            time.sleep(0.02)
        return found

    def refuse(self) -> None:
        """From now on no trace is taken."""
        self._refusing = True

    async def take_traces(self, request: web.Request) -> web.Response:
        if self._refusing:
            return web.Response(status=400)
        body = await request.read()
        self._kept(request, body)
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for resource in message.resource_spans:
            about = {one.key: _value(one.value) for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_span(one, about) for one in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def take_events(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._kept(request, body)
        lines = [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]
        self.events += [line for line in lines if "exception" in line or "message" in line]
        return web.json_response({})

    async def take_webhook(self, request: web.Request) -> web.Response:
        self.webhooks.append(dict(request.headers))
        self.delivered.append(await request.read())
        return web.Response(status=204)

    async def refuse_webhook(self, _: web.Request) -> web.Response:
        return web.Response(status=500, text=self.rebuff, headers={"X-Why": self.rebuff})

    def _kept(self, request: web.Request, body: bytes) -> None:
        self.raw.append(body)
        self.headers.append(dict(request.headers))


def _span(one: Any, about: dict[str, Any]) -> Span:
    return Span(
        name=one.name,
        trace_id=one.trace_id.hex(),
        span_id=one.span_id.hex(),
        parent_id=one.parent_span_id.hex(),
        kind=one.kind,
        start=one.start_time_unix_nano / 1e9,
        end=one.end_time_unix_nano / 1e9,
        failed=one.status.code == 2,
        attributes={attribute.key: _value(attribute.value) for attribute in one.attributes},
        resource=about,
    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collector() -> Iterator[Collector]:
    """One server for both, on a free port, in a thread of its own."""
    found = Collector()
    loop = asyncio.new_event_loop()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/traces", found.take_traces)
    app.router.add_post("/webhooks/refusing", found.refuse_webhook)
    app.router.add_post("/webhooks{further:.*}", found.take_webhook)
    app.router.add_post("/api/{project}/envelope/", found.take_events)
    runner = web.AppRunner(app)

    async def begin() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        found.url = f"http://127.0.0.1:{port}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
