"""From what the socket tells to how far a job is: never backwards, at most ten times a second."""

import asyncio
from collections.abc import Callable

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
        self._total = sum(self._steps.values())
        self._done: dict[str, float] = {}
        self._nodes_seen: set[str] = set()
        self._percent = 0.0
        self._at: tuple[int | None, int | None, str | None] = (None, None, None)
        """Step, of how many, of which node."""
        self._loading: tuple[str, float] | None = None
        self.load_seconds: dict[str, float] = {}

    def node_started(self, node: str, now: float) -> None:
        """A node runs; the one before it is done."""
        if self._loading is not None:
            loader, since = self._loading
            self.load_seconds[loader] = now - since
            self._loading = None
        if "Loader" in self._classes.get(node, ""):
            self._loading = (node, now)
        self._nodes_seen.add(node)
        if not self._steps:
            self._raise_to(100.0 * (len(self._nodes_seen) - 1) / max(len(self._classes), 1))
        elif self._done and all(self._done.get(one, 0.0) >= 1.0 for one in self._steps):
            self._raise_to(100.0 * (SAMPLING_SHARE + 0.05))
        self._at = (None, None, node)

    def stepped(self, node: str | None, value: int, maximum: int) -> None:
        """A step of a node is done."""
        if node is not None and maximum > 0:
            self._done[node] = max(self._done.get(node, 0.0), min(value / maximum, 1.0))
        self._at = (value, maximum, node)

    def progress(self) -> Progress:
        """How far it is now: reckoned when it is told, since most steps are not."""
        if self._steps and self._done:
            done = sum(steps * self._done.get(one, 0.0) for one, steps in self._steps.items())
            self._raise_to(100.0 * SAMPLING_SHARE * done / self._total)
        step, total, node = self._at
        return Progress(round(self._percent, 1), step, total, node, self._classes.get(node or ""))

    def _raise_to(self, percent: float) -> None:
        self._percent = max(self._percent, min(percent, 99.0))


class Teller:
    """Says when progress is to be told. What comes too early, or before `open`, is told in its time, as it is then:
    a node may run for a minute without another word, and listeners are to know which.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._news = False
        self._open = False
        self._pause: asyncio.TimerHandle | None = None
        """Runs while it is too early for the next."""

    def open(self) -> None:
        self._open = True
        self._pass_on()

    def close(self) -> None:
        """Nothing is told any more."""
        self._open = False
        if self._pause is not None:
            self._pause.cancel()

    def heard(self, *, last: bool = False) -> None:
        """There is something to tell; the `last` step of a node at once: it is what a listener waits for."""
        self._news = True
        if self._open and (last or self._pause is None):
            self._pass_on()

    def _pass_on(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._news:
            self._news = False
            self._pause = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._pass_on)
            self._tell()
