"""From what the socket tells to how far a job is: never backwards, at most ten times a second."""

from comfy_api_service.domain.events import Progress
from comfy_api_service.domain.graph import Graph

INTERVAL_SECONDS = 0.1
SAMPLING_SHARE = 0.9
"""Part of the bar that sampling steps fill; loading comes before it, decoding after."""


class ProgressMeter:
    """Counts the sampling steps of all samplers of a graph; without any, its nodes."""

    def __init__(self, graph: Graph) -> None:
        self._classes = {node: str(spec.get("class_type", "")) for node, spec in graph.items()}
        self._steps = {
            node: steps
            for node, spec in graph.items()
            if isinstance(steps := spec.get("inputs", {}).get("steps"), int) and steps > 0
        }
        self._done: dict[str, float] = {}
        self._nodes_seen: set[str] = set()
        self._percent = 0.0
        self._told_at = -1.0
        self._loading: tuple[str, float] | None = None
        self.load_seconds: dict[str, float] = {}

    def node_started(self, node: str | None, now: float) -> Progress | None:
        """A node runs; the one before it is done."""
        if self._loading is not None:
            loader, since = self._loading
            self.load_seconds[loader] = now - since
            self._loading = None
        if node is None:
            return None
        if "Loader" in self._classes.get(node, ""):
            self._loading = (node, now)
        self._nodes_seen.add(node)
        if not self._steps:
            self._raise_to(100.0 * (len(self._nodes_seen) - 1) / max(len(self._classes), 1))
        elif self._done and all(self._done.get(one, 0.0) >= 1.0 for one in self._steps):
            self._raise_to(100.0 * (SAMPLING_SHARE + 0.05))
        return self._say(now, None, None, node)

    def stepped(self, node: str | None, value: int, maximum: int, now: float) -> Progress | None:
        """A step of a node is done."""
        if node is not None and maximum > 0:
            self._done[node] = min(value / maximum, 1.0)
        if self._steps:
            total = sum(self._steps.values())
            done = sum(steps * self._done.get(one, 0.0) for one, steps in self._steps.items())
            self._raise_to(100.0 * SAMPLING_SHARE * done / total)
        return self._say(now, value, maximum, node, last=value >= maximum)

    def _raise_to(self, percent: float) -> None:
        self._percent = max(self._percent, min(percent, 99.0))

    def _say(
        self, now: float, step: int | None, total: int | None, node: str | None, *, last: bool = False
    ) -> Progress | None:
        if now - self._told_at < INTERVAL_SECONDS and not last:
            return None
        self._told_at = now
        return Progress(round(self._percent, 1), step, total, node, self._classes.get(node or ""))
