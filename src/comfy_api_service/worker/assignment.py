"""What a run needs to know of its attempt, whether it was claimed just now or adopted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_api_service.db.claims import Claimed
from comfy_api_service.db.transitions import Fence
from comfy_api_service.db.work import OpenAttempt
from comfy_api_service.domain.job import OutputOptions, State
from comfy_api_service.domain.upload import JobInput


class Attempted(Protocol):
    """What speaks for an attempt."""

    @property
    def job_id(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def dispatched_at(self) -> float: ...

    @property
    def trace_context(self) -> str | None: ...

    @property
    def fence(self) -> Fence: ...


@dataclass(frozen=True, slots=True)
class Assignment:
    job_id: str
    account_id: str
    attempt: int
    prompt_id: str
    worker_id: str
    client_id: str
    state: State
    graph: bytes | None
    params: Mapping[str, Any]
    output: OutputOptions
    model: str | None
    timing_key: str
    images: int
    dispatched_at: float
    queued_at: float
    inputs: tuple[JobInput, ...] = ()
    trace_context: str | None = None

    @property
    def fence(self) -> Fence:
        return Fence(self.job_id, self.attempt, self.worker_id)

    def place_in_batch(self, index: int) -> dict[str, int]:
        """Which picture of several a file of a generation is; nothing for one that is alone.

        ComfyUI draws one noise for a whole batch: the seed that its pictures share names none of them.
        """
        size = self.params.get("batch_size", 1)
        return {"batch_index": index, "batch_size": size} if size > 1 else {}


def assigned(found: Claimed | OpenAttempt) -> Assignment:
    adopted = found if isinstance(found, OpenAttempt) else None
    return Assignment(
        job_id=found.job_id,
        account_id=found.account_id,
        attempt=found.attempt,
        prompt_id=found.prompt_id,
        worker_id=found.worker_id,
        client_id=found.client_id,
        state=State.DISPATCHED if adopted is None else adopted.state,
        graph=found.graph,
        params=found.params,
        output=found.output,
        model=found.model,
        timing_key=found.timing_key,
        images=found.images,
        dispatched_at=found.dispatched_at,
        queued_at=found.queued_at,
        inputs=found.inputs,
        trace_context=found.trace_context,
    )
