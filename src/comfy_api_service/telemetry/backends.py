"""Figures of the backends that a process drives. Backends come and go, and their series with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MOST_BACKENDS: Final = 1_000
"""Told by their names in one process; what is beyond is counted together, as `other`."""
OTHER: Final = "other"
REQUEST_STATUSES: Final = ("ok", "error", "unreachable", "no_answer", "bad_answer", "canceled")
MEMORY_KINDS: Final = ("ram_total", "ram_free", "vram_total", "vram_free")
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 300)


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """The series of one backend, found once. After it was removed they go on counting, and nobody is told."""

    requests: Mapping[str, Counter]
    duration: Histogram
    up: Gauge
    busy: Gauge
    model_loads: Counter
    memory: Mapping[str, Gauge]
    breaker: Gauge
    suspected: Counter
    inputs_sent: Counter


class BackendSeries:
    """The families, and whose series there are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._named: set[str] = set()
        self.requests = Counter(
            "comfyui_backend_requests",
            "HTTP requests to backends.",
            ["backend", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "comfyui_backend_request_duration_seconds",
            "Time of an HTTP request to a backend.",
            ["backend"],
            registry=registry,
            buckets=SECONDS,
        )
        self.up = Gauge(
            "comfyui_backend_up", "1 while the backend can take work.", ["backend"], registry=registry
        )
        self.busy = Gauge(
            "comfyui_backend_busy_ratio",
            "Share of the last minute in which a prompt executed on the backend.",
            ["backend"],
            registry=registry,
        )
        self.model_loads = Counter(
            "comfyui_backend_model_loads",
            "Jobs that made a backend load another model.",
            ["backend"],
            registry=registry,
        )
        self.memory = Gauge(
            "comfyui_backend_memory_bytes",
            "Memory as the backend tells it.",
            ["backend", "kind"],
            registry=registry,
        )
        self.breaker = Gauge(
            "comfyui_circuit_breaker_state",
            "0 closed, 1 half open, 2 open.",
            ["backend"],
            registry=registry,
        )
        self.suspected = Counter(
            "comfyui_backend_suspected",
            "How often a backend answered and did not work.",
            ["backend"],
            registry=registry,
        )
        self.inputs_sent = Counter(
            "comfyui_inputs_sent", "Input files sent to a backend.", ["backend"], registry=registry
        )

    def add(self, name: str) -> BackendFigures:
        """Make every series of a backend appear, at zero."""
        told = name in self._named or len(self._named) < MOST_BACKENDS
        if told:
            self._named.add(name)
        label = name if told else OTHER
        figures = BackendFigures(
            requests={status: self.requests.labels(label, status) for status in REQUEST_STATUSES},
            duration=self.duration.labels(label),
            up=self.up.labels(label) if told else _untold(),
            busy=self.busy.labels(label) if told else _untold(),
            model_loads=self.model_loads.labels(label),
            memory={kind: self.memory.labels(label, kind) if told else _untold() for kind in MEMORY_KINDS},
            breaker=self.breaker.labels(label) if told else _untold(),
            suspected=self.suspected.labels(label),
            inputs_sent=self.inputs_sent.labels(label),
        )
        for gauge in (figures.up, figures.busy, figures.breaker, *figures.memory.values()):
            gauge.set(0)
        return figures

    def remove(self, name: str) -> None:
        """Of a backend that this process drives no more it tells nothing; whoever drives it does."""
        if name not in self._named:
            return
        self._named.remove(name)
        for family in (
            self.duration,
            self.up,
            self.busy,
            self.model_loads,
            self.breaker,
            self.suspected,
            self.inputs_sent,
        ):
            family.remove(name)
        for status in REQUEST_STATUSES:
            self.requests.remove(name, status)
        for kind in MEMORY_KINDS:
            self.memory.remove(name, kind)


def _untold() -> Gauge:
    """A gauge of its own: the last of several would overwrite the others'."""
    return Gauge("untold", "Not collected.", registry=None)
