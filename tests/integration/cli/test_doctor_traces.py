"""The doctor's question to a collector of traces."""

import pytest
from tests.support.collector import collector

from comfy_api_service.cli.doctor.finding import Level
from comfy_api_service.cli.doctor.traces import examine
from comfy_api_service.settings import Settings


async def test_a_collector_that_takes_refuses_and_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with collector() as there:
        settings = Settings(_env_file=None, otel_exporter_otlp_endpoint=there.url)
        assert (await examine(settings)).status is Level.OK
        assert len(there.raw) == 1
        there.refuse()
        found = await examine(settings)
        assert (found.status, found.message) == (
            Level.WARNING,
            "the collector takes none: it answers Bad Request",
        )
    away = Settings(_env_file=None, otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    found = await examine(away, seconds=2)
    assert (found.status, found.message) == (
        Level.WARNING,
        "the collector takes none: connection refused",
    )
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in found.remedy
