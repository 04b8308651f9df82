"""Requests to a backend where traces are on: a span for each that belongs to a job, and the backend is told of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from comfy_api_service.comfyui.transport import Transport
from comfy_api_service.telemetry.tracing import CLIENT, Tracing, fail


class TracedTransport(Transport):
    """What looks after the backend itself, each second, has no spans."""

    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing
        parsed = urlsplit(self.url)  # its path and its password stay here
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        self._server: dict[str, str | int] = {"server.address": parsed.hostname or "", "server.port": port}

    @asynccontextmanager
    async def open(
        self, method: str, route: str, path: str, **content: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if not self._tracing.recorded():
            async with super().open(method, route, path, **content) as response:
                yield response
            return
        asked = {"http.request.method": method, "url.template": route, **self._server}
        with self._tracing.span(f"{method} {route}", kind=CLIENT, attributes=asked) as span:
            headers = {**content.pop("headers", {}), "traceparent": str(self._tracing.here())}
            async with super().open(method, route, path, headers=headers, **content) as response:
                span.set_attribute("http.response.status_code", response.status)
                if response.status >= 400:
                    fail(span, str(response.status))
                yield response
