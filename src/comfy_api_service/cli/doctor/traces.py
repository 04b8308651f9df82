"""The collector that traces go to: sent nothing once, as the service would send spans."""

import asyncio
from typing import TYPE_CHECKING, Final

from comfy_api_service.bootstrap.reporting import trace_endpoint
from comfy_api_service.cli.doctor.finding import Finding, ok, warning
from comfy_api_service.telemetry.tracing import not_taken

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

SUBJECT: Final = "traces"
SECONDS: Final = 5.0


async def examine(settings: "Settings", *, seconds: float = SECONDS) -> Finding:
    why = await asyncio.to_thread(not_taken, trace_endpoint(settings), seconds)
    if why is None:
        return ok(SUBJECT, "the collector takes them")
    return warning(
        SUBJECT,
        f"the collector takes none: {why}",
        "Start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT: the base address of its OTLP over HTTP (port 4318 if none "
        "was chosen). Nothing else waits for it.",
    )
