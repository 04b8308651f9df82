"""The metrics: every name, help and label in one place, every label set present from the start at zero."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from comfy_api_service.domain.errors import TABLE
from comfy_api_service.domain.job import Status
from comfy_api_service.telemetry.backends import OTHER, SECONDS, BackendFigures, BackendSeries
from comfy_api_service.telemetry.requests import Requests

JOB_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
REQUEST_SECONDS = SECONDS
REDIS_STATES = ("embedded", "connected", "disconnected")
REDIS_QUESTIONS = ("publish", "read", "buckets", "ping")
REDIS_USES = ("wake", "event", "progress", "preview", "cancel", "pool", "publish", "read", "buckets")
LIMITS = ("submissions", "reads", "uploads", "login", "logins", "strangers", "waiting", "images")
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class _JobsCreated(Collector):
    """`comfyui_jobs_created_total`: a counter that the client library refuses beside `comfyui_jobs_total`,
    whose generated `_created` series would bear the same name; so it is collected by hand, without one.
    """

    def __init__(self) -> None:
        self._value = 0.0

    def inc(self) -> None:
        self._value += 1

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("comfyui_jobs_created", "Jobs accepted, that is, durably queued.")
        family.add_metric([], self._value)
        yield family

    def describe(self) -> Iterator[Metric]:
        return iter(())


class Metrics:
    """One registry a process. Label values are bounded by the code, but for tiers and backends, which are bounded in
    `begin_tiers` and in `telemetry/backends.py`.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # their names clash with `comfyui_jobs_created`
        self.registry = registry = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=registry)
        self.build = Gauge(
            "comfyui_build_info",
            "1; which process this is.",
            ["version", "role"],
            registry=registry,
        )
        self.jobs_created = _JobsCreated()
        registry.register(self.jobs_created)
        self.jobs = Counter("comfyui_jobs", "Jobs that ended, by status.", ["status"], registry=registry)
        self.failures = Counter(
            "comfyui_job_failures", "Jobs that failed, by error code.", ["reason"], registry=registry
        )
        self.in_progress = Gauge(
            "comfyui_jobs_in_progress", "Jobs that backends have now.", registry=registry
        )
        self.queue_depth = Gauge(
            "comfyui_queue_depth",
            "Jobs that wait, by the tier of their account.",
            ["tier"],
            registry=registry,
        )
        self._tiers = {OTHER}
        self.queue_depth.labels(OTHER)
        self.queue_oldest = Gauge(
            "comfyui_queue_oldest_seconds", "Age of the job that has waited longest.", registry=registry
        )
        self.job_duration = Histogram(
            "comfyui_job_duration_seconds",
            "From acceptance to the end, of jobs that succeeded.",
            registry=registry,
            buckets=JOB_SECONDS,
        )
        self.job_wait = Histogram(
            "comfyui_job_wait_seconds",
            "From acceptance to the start on a backend.",
            registry=registry,
            buckets=JOB_SECONDS,
        )
        self.http_requests = Requests()
        registry.register(self.http_requests)
        self.http_in_progress = Gauge(
            "comfyui_http_requests_in_progress", "HTTP requests being answered.", registry=registry
        )
        self.websockets = Gauge(
            "comfyui_websocket_connections", "Open WebSocket connections of callers.", registry=registry
        )
        self.uploads = Counter(
            "comfyui_storage_uploads", "Artifacts written to storage.", ["status"], registry=registry
        )
        self.upload_bytes = Counter(
            "comfyui_storage_upload_bytes", "Bytes of artifacts written to storage.", registry=registry
        )
        self.parked = Gauge(
            "comfyui_parked_results",
            "Results that wait on this worker's disk for the store.",
            registry=registry,
        )
        self.parked_bytes = Gauge(
            "comfyui_parked_bytes", "Bytes of results on this worker's disk.", registry=registry
        )
        self.parked_ends = Counter(
            "comfyui_parked_ends",
            "Results that waited on this worker's disk, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.backends = BackendSeries(registry)
        self.leases = Gauge("comfyui_worker_leases", "Backends that this worker drives.", registry=registry)
        self.replaced = Counter(
            "comfyui_worker_replaced",
            "How often this worker was taken for dead and found itself alive.",
            registry=registry,
        )
        self.counter_drift = Counter(
            "comfyui_counter_drift", "Counters found to differ from what they count.", registry=registry
        )
        self.database_up = Gauge(
            "comfyui_database_up",
            "1 while the database answers this process.",
            registry=registry,
        )
        self.redis_state = Gauge(
            "comfyui_redis_state", "1 for the state that Redis is in.", ["state"], registry=registry
        )
        self.redis_requests = Counter(
            "comfyui_redis_requests", "Exchanges with Redis.", ["use", "status"], registry=registry
        )
        self.redis_duration = Histogram(
            "comfyui_redis_request_duration_seconds",
            "Time until Redis answered.",
            ["use"],
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        self.limited = Counter(
            "comfyui_requests_limited",
            "Requests refused because of a limit of their account or address.",
            ["limit"],
            registry=registry,
        )
        self.credentials_refused = Counter(
            "comfyui_credentials_refused",
            "Requests whose credential was absent, wrong, expired or revoked.",
            registry=registry,
        )
        self.logins = Counter(
            "comfyui_logins", "Attempts to log in, by what came of them.", ["outcome"], registry=registry
        )
        self.redis_fallbacks = Counter(
            "comfyui_redis_fallbacks", "What had to go another way than Redis.", ["use"], registry=registry
        )
        self.redis_messages = Counter(
            "comfyui_redis_messages",
            "Signals of other processes that were received or not understood, and own ones that were dropped.",
            ["outcome"],
            registry=registry,
        )
        self.trace_spans = Counter(
            "comfyui_trace_spans", "Spans of traces, by what became of them.", ["outcome"], registry=registry
        )
        for outcome in ("recorded", "sent", "lost"):
            self.trace_spans.labels(outcome)
        self._begin_redis()
        self._count_inputs(registry)
        self._count_rules(registry)
        self._count_webhooks(registry)
        for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED):
            self.jobs.labels(status.value)
        for code, info in TABLE.items():
            if info.of_job:
                self.failures.labels(code.value)
        for outcome in ("ok", "failed"):
            self.uploads.labels(outcome)
        for outcome in ("delivered", "canceled", "expired", "damaged", "replaced"):
            self.parked_ends.labels(outcome)

    def _count_inputs(self, registry: CollectorRegistry) -> None:
        self.inputs = Counter(
            "comfyui_uploads", "Pictures that callers brought as inputs.", ["status"], registry=registry
        )
        self.input_bytes = Counter(
            "comfyui_upload_bytes", "Bytes of pictures that callers brought.", registry=registry
        )
        self.fetches = Counter(
            "comfyui_input_fetches",
            "Pictures fetched from addresses that callers gave, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        self.graphs = Counter(
            "comfyui_graphs_checked",
            "Graphs of callers that were checked, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("ok", "refused", "failed"):
            self.inputs.labels(outcome)
            self.fetches.labels(outcome)
        for outcome in ("accepted", "refused"):
            self.graphs.labels(outcome)

    def _count_rules(self, registry: CollectorRegistry) -> None:
        self.prompt_rules = Counter(
            "comfyui_prompt_rules",
            "Requests held against the operator's rules for texts, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        self.hook_duration = Histogram(
            "comfyui_prompt_hook_duration_seconds",
            "Time until the prompt hook answered or failed.",
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        for outcome in ("allowed", "refused", "rewritten", "failed"):
            self.prompt_rules.labels(outcome)

    def _count_webhooks(self, registry: CollectorRegistry) -> None:
        self.webhook_deliveries = Counter(
            "comfyui_webhook_deliveries",
            "Attempts to deliver webhooks, by what came of them; unreadable: held back for a secret of another key.",
            ["status"],
            registry=registry,
        )
        self.webhook_waiting = Gauge(
            "comfyui_webhook_waiting",
            "Deliveries that wait, for the first attempt or the next; counted up to 100000.",
            registry=registry,
        )
        self.webhook_oldest = Gauge(
            "comfyui_webhook_oldest_seconds",
            "How long the receiver that is due longest, and does not keep failing, waits for this service.",
            registry=registry,
        )
        self.webhook_delay = Histogram(
            "comfyui_webhook_delay_seconds",
            "From the event to the first attempt to deliver it; not of what waited for its receiver.",
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        self.webhook_duration = Histogram(
            "comfyui_webhook_delivery_duration_seconds",
            "Time of one attempt to deliver a webhook.",
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        for status in ("delivered", "retried", "failed", "unreadable"):
            self.webhook_deliveries.labels(status)

    def _begin_redis(self) -> None:
        self.set_redis("embedded")
        for use in REDIS_QUESTIONS:
            self.redis_duration.labels(use)
            for status in ("ok", "refused", "failed", "skipped"):
                self.redis_requests.labels(use, status)
        for use in REDIS_USES:
            self.redis_fallbacks.labels(use)
        for limit in LIMITS:
            self.limited.labels(limit)
        for outcome in ("ok", "refused"):
            self.logins.labels(outcome)
        for outcome in ("received", "ignored", "dropped"):
            self.redis_messages.labels(outcome)

    def set_redis(self, state: str) -> None:
        """One of `REDIS_STATES`."""
        for one in REDIS_STATES:
            self.redis_state.labels(one).set(one == state)

    def add_backend(self, name: str) -> BackendFigures:
        """Every series of a backend that this process drives from now on, at zero."""
        return self.backends.add(name)

    def remove_backend(self, name: str) -> None:
        self.backends.remove(name)

    def tell_process(self, *, role: str, version: str) -> None:
        """Which process these figures are of."""
        self.build.labels(version, role).set(1)

    def begin_tiers(self, tiers: Iterable[str]) -> None:
        """The tiers there are; accounts of others, which were removed, wait as `other`."""
        for tier in (*tiers, OTHER):
            self.queue_depth.labels(tier)
            self._tiers.add(tier)

    def tell_queue(self, by_tier: Mapping[str, int], *, running: int, oldest: float) -> None:
        """`by_tier`: waiting jobs; `oldest`: seconds that the first of them has waited."""
        depths = dict.fromkeys(self._tiers, 0)
        for tier, queued in by_tier.items():
            depths[tier if tier in self._tiers else OTHER] += queued
        for tier, queued in depths.items():
            self.queue_depth.labels(tier).set(queued)
        self.in_progress.set(running)
        self.queue_oldest.set(oldest)
