"""Figures of HTTP requests, counted as plain numbers on the loop's own thread: the client library's locks and walks
through buckets, twice a request, cost more than all that is counted.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from comfy_api_service.telemetry.backends import SECONDS

COUNTED: Final = "comfyui_http_requests"
TIMED: Final = "comfyui_http_request_duration_seconds"


class Times:
    """Of a method and an endpoint."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0


class Answered:
    """Requests with one outcome."""

    __slots__ = ("_times", "number")

    def __init__(self, times: Times) -> None:
        self.number = 0
        self._times = times

    def add(self, seconds: float) -> None:
        self.number += 1
        self._times.total += seconds
        self._times.counts[bisect_left(SECONDS, seconds)] += 1


class Requests(Collector):
    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, str], Answered] = {}
        self._times: dict[tuple[str, str], Times] = {}

    def labels(self, method: str, endpoint: str, code: str) -> Answered:
        """Its series, which is told from now on."""
        key = (method, endpoint, code)
        if key not in self._answered:
            self._answered[key] = Answered(self._times.setdefault((method, endpoint), Times()))
        return self._answered[key]

    def collect(self) -> Iterator[Metric]:
        counted, timed = _families()
        for labels, answered in tuple(self._answered.items()):
            counted.add_metric(labels, answered.number)
        bounds = [*map(floatToGoString, SECONDS), "+Inf"]
        for within, times in tuple(self._times.items()):
            sums = accumulate(times.counts)
            timed.add_metric(within, list(zip(bounds, sums, strict=True)), times.total)
        yield counted
        yield timed

    def describe(self) -> Iterator[Metric]:
        yield from _families()


def _families() -> tuple[CounterMetricFamily, HistogramMetricFamily]:
    return (
        CounterMetricFamily(COUNTED, "HTTP requests answered.", labels=["method", "endpoint", "code"]),
        HistogramMetricFamily(TIMED, "Time to answer an HTTP request.", labels=["method", "endpoint"]),
    )
