"""The metrics page is well formed, and every series is there from the start."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from comfy_api_service.telemetry import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    text = generate_latest(metrics.registry).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_jobs_and_jobs_created_stand_side_by_side() -> None:
    metrics = Metrics()
    metrics.jobs_created.inc()
    metrics.jobs.labels("failed").inc(2)
    found = samples(metrics)
    assert found["comfyui_jobs_created_total[]"] == 1
    assert found["comfyui_jobs_total[('status', 'failed')]"] == 2
    assert not [name for name in found if name.startswith("comfyui_jobs_created[")]


def test_every_series_of_a_backend_is_there_at_zero() -> None:
    metrics = Metrics()
    metrics.add_backend("comfyui-1")
    of_backend = {name: value for name, value in samples(metrics).items() if "comfyui-1" in name}
    assert len(of_backend) > 20
    assert set(of_backend.values()) == {0.0}
