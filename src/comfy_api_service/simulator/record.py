"""What a simulated server saw and did, for tests and benchmarks to read."""

import dataclasses
import time
from collections import Counter, OrderedDict, deque
from typing import Any

KEPT_REQUESTS = 50_000
KEPT_PROMPTS = 50_000


@dataclasses.dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came in; `at` is monotonic time."""

    method: str
    path: str
    at: float


@dataclasses.dataclass(slots=True)
class Execution:
    """One run of a prompt; `outcome` is None while it runs, then success, error, interrupted or killed."""

    prompt_id: str
    client_id: str | None
    started: float
    ended: float | None = None
    outcome: str | None = None


class Record:
    """Counters and bounded logs. It outlives the faults `die` and `restart`."""

    def __init__(self) -> None:
        self.requests: deque[SeenRequest] = deque(maxlen=KEPT_REQUESTS)
        self.request_counts: Counter[str] = Counter()
        self.prompts: OrderedDict[str, list[Execution]] = OrderedDict()
        self.accepted: Counter[str] = Counter()
        self.model_loads = 0
        self.loads: deque[str] = deque(maxlen=10_000)
        self.nodes_run: Counter[str] = Counter()
        self.max_queue = 0
        self.frames_sent = 0
        self.executions = 0

    def request(self, method: str, path: str) -> None:
        self.requests.append(SeenRequest(method, path, time.monotonic()))
        self.request_counts[f"{method} {'/'.join(path.split('/')[:3])}"] += 1

    def start(self, prompt_id: str, client_id: str | None) -> Execution:
        execution = Execution(prompt_id, client_id, time.monotonic())
        self.prompts.setdefault(prompt_id, []).append(execution)
        self.executions += 1
        while len(self.prompts) > KEPT_PROMPTS:
            old, _ = self.prompts.popitem(last=False)
            self.accepted.pop(old, None)
        return execution

    def times_executed(self, prompt_id: str) -> int:
        return len(self.prompts.get(prompt_id, ()))

    def loaded(self, model: str) -> None:
        self.model_loads += 1
        self.loads.append(model)

    def queue_length(self, length: int) -> None:
        self.max_queue = max(self.max_queue, length)

    def as_json(self) -> dict[str, Any]:
        """All of it but the single requests, of which only the counts."""
        return {
            "request_counts": dict(self.request_counts),
            "prompts": {k: [dataclasses.asdict(e) for e in v] for k, v in self.prompts.items()},
            "accepted": dict(self.accepted),
            "model_loads": self.model_loads,
            "loads": list(self.loads),
            "nodes_run": dict(self.nodes_run),
            "max_queue": self.max_queue,
            "frames_sent": self.frames_sent,
            "executions": self.executions,
        }
