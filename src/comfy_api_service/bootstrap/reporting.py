"""Traces and reports of faults, where they are switched on. What they need is loaded here and nowhere else."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from structlog.types import Processor

from comfy_api_service import __version__
from comfy_api_service.settings import Settings
from comfy_api_service.telemetry import Metrics

if TYPE_CHECKING:
    from comfy_api_service.telemetry.tracing import Tracing


def log_processors(settings: Settings) -> list[Processor]:
    """What lines of the log pass through besides."""
    processors: list[Processor] = []
    if settings.traces_on:
        from comfy_api_service.telemetry.tracing import trace_ids  # noqa: PLC0415

        processors.append(trace_ids)
    if settings.sentry_dsn is not None:
        from comfy_api_service.telemetry.sentry import report  # noqa: PLC0415

        processors.append(report)
    return processors


def trace_endpoint(settings: Settings) -> str | None:
    """The collector's base address; None: the SDK takes it from the environment."""
    by_environment = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} & os.environ.keys()
    return None if by_environment else settings.otel_exporter_otlp_endpoint


@asynccontextmanager
async def reporting(settings: Settings, metrics: Metrics, *, role: str) -> "AsyncIterator[Tracing | None]":
    """Traces, or None where they are off; at the end what is left of them and of reports is sent."""
    tracing = _tracing(settings, metrics, role)
    dsn = settings.sentry_dsn
    try:
        if dsn is not None:
            from comfy_api_service.telemetry.sentry import open_sentry  # noqa: PLC0415

            open_sentry(dsn.get_secret_value(), release=__version__, role=role, node_id=settings.node_id)
        yield tracing
    finally:
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        if dsn is not None:
            from comfy_api_service.telemetry.sentry import close_sentry  # noqa: PLC0415

            await asyncio.to_thread(close_sentry)


def _tracing(settings: Settings, metrics: Metrics, role: str) -> "Tracing | None":
    if not settings.traces_on:
        return None
    from comfy_api_service.telemetry.tracing import Tracing  # noqa: PLC0415 - takes a quarter of a second

    return Tracing(
        endpoint=trace_endpoint(settings),
        version=__version__,
        role=role,
        metrics=metrics,
        callers_per_second=settings.trace_callers_per_second,
    )
