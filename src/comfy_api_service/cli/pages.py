"""The two pages of a process that answers no callers: its figures, and that it lives."""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from comfy_api_service.cli.faults import Fault
from comfy_api_service.telemetry import Metrics

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings


@asynccontextmanager
async def pages(settings: "Settings", metrics: Metrics) -> AsyncIterator[None]:
    """Serve `/metrics` and `/health/live` on `METRICS_PORT`. Raises `Fault` if the port is in use."""
    token = settings.metrics_token

    async def figures(request: web.Request) -> web.Response:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {token.get_secret_value()}".encode()
        ):
            return web.json_response({"error": {"code": "UNAUTHORIZED"}}, status=401)
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    app = web.Application()
    app.add_routes([web.get("/metrics", figures), web.get("/health/live", live)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.metrics_port)
        try:
            await site.start()
        except OSError as error:
            raise Fault(
                f"Cannot serve figures on {settings.host}, port {settings.metrics_port}: {error.strerror}.",
                "Choose another METRICS_PORT.",
            ) from None
        yield
    finally:
        await runner.cleanup()
