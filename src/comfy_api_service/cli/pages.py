"""A port of the process's own, for whoever watches it: its figures, and that it lives."""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.telemetry import Metrics

if TYPE_CHECKING:
    from aiohttp import web

    from comfy_api_service.settings import Settings

LAST_PORT: Final = 65_535


def port_of(settings: "Settings", number: int) -> int | None:
    """That of the n-th of several processes on one machine. Raises `Fault` if there is none."""
    if settings.metrics_port is None:
        return None
    port = settings.metrics_port + number - 1
    if port > LAST_PORT:
        raise Fault(
            f"Process {number} has no port for its figures: METRICS_PORT is {settings.metrics_port}.",
            "Choose a lower METRICS_PORT, or fewer --workers.",
            exit_code=ExitCode.USAGE,
        )
    return port


@asynccontextmanager
async def pages(settings: "Settings", metrics: Metrics, *, number: int = 1) -> AsyncIterator[None]:
    """Serve `/metrics` and `/health/live` on `METRICS_PORT`, if it is set; the n-th process of several on the port
    n - 1 above. Raises `Fault` if it is in use.
    """
    port = port_of(settings, number)
    if port is None:
        yield
        return
    from aiohttp import web  # noqa: PLC0415 - takes a tenth of a second

    host = settings.metrics_host or settings.host
    token = settings.metrics_token

    async def figures(request: "web.Request") -> "web.Response":
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {token.get_secret_value()}".encode()
        ):
            return web.json_response({"error": {"code": "UNAUTHORIZED"}}, status=401)
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def live(_: "web.Request") -> "web.Response":
        return web.json_response({"alive": True})

    app = web.Application()
    app.add_routes([web.get("/metrics", figures), web.get("/health/live", live)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise Fault(
                f"Cannot serve figures on {host}, port {port}: {error.strerror}.",
                "Choose another METRICS_PORT or METRICS_HOST.",
            ) from None
        yield
    finally:
        await runner.cleanup()
