"""What a simulated server says that it did; its times are monotonic seconds, the same clock in all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Execution:
    prompt_id: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Record:
    executions: tuple[Execution, ...]
    """Those that succeeded, by their start."""
    requests: int
    most_prompts: int
    """The most that its queue ever held, the running one included."""
    model_loads: int

    def since(self, earlier: "Record") -> tuple[Execution, ...]:
        known = {execution.prompt_id for execution in earlier.executions}
        return tuple(one for one in self.executions if one.prompt_id not in known)


async def read(server: Server) -> Record:
    async with aiohttp.ClientSession(server.url) as http, http.get("/_simulator/record") as answer:
        answer.raise_for_status()
        document: dict[str, Any] = await answer.json()
    executions = [
        Execution(prompt_id, run["started"], run["ended"])
        for prompt_id, runs in document["prompts"].items()
        for run in runs
        if run["outcome"] == "success"
    ]
    return Record(
        executions=tuple(sorted(executions, key=lambda one: one.started)),
        requests=sum(document["request_counts"].values()),
        most_prompts=document["max_queue"],
        model_loads=document["model_loads"],
    )


def busy_ratio(executions: Sequence[Execution]) -> float:
    """The share of the time from the first start to the last end in which a prompt executed."""
    span = executions[-1].ended - executions[0].started
    return sum(one.ended - one.started for one in executions) / span
