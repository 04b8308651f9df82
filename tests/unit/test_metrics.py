"""The metrics page is well formed, and every series is there from the start."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from comfy_api_service.telemetry import Metrics
from comfy_api_service.telemetry.backends import MOST_BACKENDS, SECONDS
from comfy_api_service.telemetry.requests import COUNTED, TIMED


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


def test_backends_that_come_and_go_leave_no_series() -> None:
    metrics = Metrics()
    before = samples(metrics)
    for number in range(50):
        figures = metrics.add_backend(f"comfyui-{number}")
        figures.requests["ok"].inc()
        figures.up.set(1)
        metrics.remove_backend(f"comfyui-{number}")
        figures.requests["error"].inc()  # an answer that came after it was let go
        figures.duration.observe(1)
        figures.memory["vram_free"].set(1)
    assert samples(metrics).keys() == before.keys()
    metrics.remove_backend("comfyui-1")
    metrics.add_backend("comfyui-1")
    assert samples(metrics)["comfyui_backend_up[('backend', 'comfyui-1')]"] == 0


def test_beyond_the_bound_backends_are_counted_together() -> None:
    metrics = Metrics()
    for number in range(MOST_BACKENDS):
        metrics.add_backend(f"comfyui-{number}")
    full = set(samples(metrics))
    last = [metrics.add_backend(f"late-{number}") for number in range(3)]
    for figures in last:
        figures.requests["ok"].inc()
        figures.up.set(1)
    found = samples(metrics)
    assert found["comfyui_backend_requests_total[('backend', 'other'), ('status', 'ok')]"] == 3
    assert not [name for name in found if "late-" in name]
    assert "comfyui_backend_up[('backend', 'other')]" not in found
    metrics.remove_backend("late-0")
    assert full < set(samples(metrics))


def test_waiting_jobs_of_tiers_that_are_no_more_are_told_together() -> None:
    metrics = Metrics()
    metrics.begin_tiers(("free", "pro"))
    depths = {tier: f"comfyui_queue_depth[('tier', '{tier}')]" for tier in ("free", "pro", "other")}
    assert all(samples(metrics)[name] == 0 for name in depths.values())
    metrics.tell_queue({"free": 2, "gold": 3, "silver": 4}, running=1, oldest=2.0)
    found = samples(metrics)
    assert [found[depths[tier]] for tier in ("free", "pro", "other")] == [2, 0, 7]
    metrics.tell_queue({}, running=0, oldest=0.0)
    assert samples(metrics)[depths["free"]] == 0


def test_requests_are_told_as_the_client_library_would() -> None:
    ours, theirs = Metrics(), CollectorRegistry()
    labels = ["method", "endpoint"]
    counter = Counter(COUNTED, "HTTP requests answered.", [*labels, "code"], registry=theirs)
    times = Histogram(TIMED, "Time to answer an HTTP request.", labels, buckets=SECONDS, registry=theirs)
    for endpoint, code in (("/a", "200"), ("/a", "404"), ("/b", "200")):
        for seconds in (0.0, 0.001, 0.0011, 0.25, 0.250001, 5.0, 1e6):
            ours.http_requests.labels("GET", endpoint, code).add(seconds)
            counter.labels("GET", endpoint, code).inc()
            times.labels("GET", endpoint).observe(seconds)
    text = generate_latest(ours.registry).decode().splitlines()
    assert [line for line in text if "comfyui_http_request" in line and "_in_progress" not in line] == (
        generate_latest(theirs).decode().splitlines()
    )
