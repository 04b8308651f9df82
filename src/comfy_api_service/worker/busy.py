"""How busy a backend was: the share of the last minute in which one of our prompts executed."""

from collections import deque

from comfy_api_service.domain.clock import Clock

SPAN_SECONDS = 60.0


class BusyMeter:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: set[str] = set()
        self._since: float | None = None
        self._spans: deque[tuple[float, float]] = deque()
        self._born = clock.monotonic()

    def began(self, prompt_id: str) -> None:
        if prompt_id not in self._running:
            self._running.add(prompt_id)
            if self._since is None:
                self._since = self._clock.monotonic()

    def ended(self, prompt_id: str) -> None:
        self._running.discard(prompt_id)
        if not self._running and self._since is not None:
            self._spans.append((self._since, self._clock.monotonic()))
            self._since = None
            self._forget()

    def ratio(self) -> float:
        """0…1."""
        self._forget()
        now = self._clock.monotonic()
        begin = max(now - SPAN_SECONDS, self._born)
        total = sum(end - max(start, begin) for start, end in self._spans)
        if self._since is not None:
            total += now - max(self._since, begin)
        return min(total / max(now - begin, 1e-9), 1.0)

    def _forget(self) -> None:
        horizon = self._clock.monotonic() - SPAN_SECONDS
        while self._spans and self._spans[0][1] < horizon:
            self._spans.popleft()
