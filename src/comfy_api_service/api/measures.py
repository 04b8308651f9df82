"""Figures of HTTP requests, by method, route and status; series are kept at hand, since finding one costs."""

from collections.abc import Iterable
from typing import Final

from comfy_api_service.telemetry import Metrics
from comfy_api_service.telemetry.requests import Answered

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED: Final = "unmatched"


class Measures:
    """Bounded: methods that nobody knows count as OTHER, paths that nobody knows as `unmatched`."""

    def __init__(self, metrics: Metrics, routes: Iterable[tuple[str, str, Iterable[int]]]) -> None:
        """`routes`: method, template and documented statuses; their series exist from the start."""
        self._requests = metrics.http_requests
        self._open = 0
        metrics.http_in_progress.set_function(lambda: self._open)  # read when asked for: no lock a request
        self._series: dict[tuple[str, str, int], Answered] = {}
        for method, template, statuses in routes:
            for status in statuses:
                self._find(method, template, status)
        self._find("GET", UNMATCHED, 404)

    def entered(self) -> None:
        self._open += 1

    def left(self) -> None:
        self._open -= 1

    def answered(self, method: str, template: str, status: int, seconds: float) -> None:
        found = self._series.get((method, template, status))
        if found is None:
            found = self._find(method if method in METHODS else "OTHER", template, status)
        found.add(seconds)

    def _find(self, method: str, template: str, status: int) -> Answered:
        key = (method, template, status)
        if key not in self._series:
            self._series[key] = self._requests.labels(method, template, str(status))
        return self._series[key]
