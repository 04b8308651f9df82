"""The parts of a worker where traces are on: what they do for an attempt stands below the attempt's span.

That span is told once the attempt is closed in the database, by whoever closed it: after a worker's death by the
one that took over.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.message_types import Output
from comfy_api_service.db import work
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.work import OpenAttempt
from comfy_api_service.domain.errors import Code, Unavailable
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.job import JobError, Status
from comfy_api_service.telemetry.traced_jobs import attempt_place
from comfy_api_service.telemetry.traceparent import Place, stored_place
from comfy_api_service.telemetry.tracing import CONSUMER, Tracing, fail
from comfy_api_service.worker.assignment import Assignment, Attempted
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.collect import Collected, Collector
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.parcel import Parcel
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.run import Run
from comfy_api_service.worker.verdict import Broke, Declined, Fenced, Lost, Produced, Untrue, Verdict


class TracedReporter(Reporter):
    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def started(self, assignment: Assignment) -> bool:
        with self._tracing.below(attempt_place(assignment), "job start"):
            return await super().started(assignment)

    async def storing(self, assignment: Assignment) -> bool:
        with self._tracing.below(attempt_place(assignment), "job storing"):
            return await super().storing(assignment)

    async def finish(
        self, assignment: Attempted, ending: Ending, measured: Mapping[str, float] | None = None
    ) -> Status | None:
        with self._tracing.below(attempt_place(assignment), "job finish"):
            status = await super().finish(assignment, ending, measured)
        if status is not None:
            fault = ending.error.code.value if ending.error is not None else None
            self._closed(assignment, status, fault if status is Status.FAILED else None)
        return status

    async def requeue(
        self, assignment: Attempted, lost: Lost, *, out_of_memory: JobError | None = None
    ) -> bool:
        with self._tracing.below(attempt_place(assignment), "job requeue"):
            held = await super().requeue(assignment, lost, out_of_memory=out_of_memory)
        if held:
            self._closed(assignment, "lost", lost.reason)
        return held

    async def give_up(self, job_id: str, ending: Ending) -> None:
        await super().give_up(job_id, ending)
        with contextlib.suppress(Unavailable):
            found = await self._db.read(lambda tx: work.waited(tx, job_id))
            place = None if found is None else stored_place(found[0])
            if found is not None and place is not None:
                code = None if ending.error is None else ending.error.code.value
                told = {"comfyui.job.id": job_id, "comfyui.job.status": ending.state.value}
                now = self._clock.now()
                self._tracing.tell(
                    "job wait", under=place, start=found[1], end=now, fault=code, attributes=told
                )

    def _closed(self, attempt: Attempted, outcome: str, fault: str | None) -> None:
        stored, place = stored_place(attempt.trace_context), attempt_place(attempt)
        if stored is None or place is None:
            return
        self._tracing.tell(
            "job attempt",
            under=stored,
            span_id=place.span_id,
            start=attempt.dispatched_at,
            end=self._clock.now(),
            kind=CONSUMER,
            fault=fault,
            attributes={
                "messaging.system": "comfyui",
                "messaging.destination.name": "jobs",
                "messaging.operation.name": "attempt",
                "messaging.operation.type": "process",
                "messaging.message.id": attempt.job_id,
                "comfyui.job.id": attempt.job_id,
                "comfyui.job.attempt": attempt.attempt,
                "comfyui.job.outcome": outcome,
            },
        )


class TracedCollector(Collector):
    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def collect(
        self, client: ComfyClient, assignment: Assignment, outputs: Sequence[Output], stored: list[str]
    ) -> Collected:
        with self._tracing.below(attempt_place(assignment), "job store") as span:
            collected = await super().collect(client, assignment, outputs, stored)
            span.set_attribute("comfyui.artifacts", len(collected.artifacts))
            return collected


class TracedCarrier(Carrier):
    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def _carry(self, parcel: Parcel) -> bool:
        with self._tracing.below(attempt_place(parcel), "job deliver") as span:
            over = await super()._carry(parcel)
            if not over:
                fail(span, Code.STORAGE_FAILED.value)
            return over


class TracedDriver(Driver):
    def __init__(self, tracing: Tracing, **options: Any) -> None:
        super().__init__(**options)
        self._tracing = tracing

    async def _begin(self, assignment: Assignment) -> None:
        claimed_at = self._clock.now()
        place = attempt_place(assignment)
        if place is not None and place.sampled:
            self._spawn(self._tell_claim(assignment, place, claimed_at))
        with self._tracing.within(place):
            await super()._begin(assignment)

    async def _tell_claim(self, assignment: Assignment, place: Place, claimed_at: float) -> None:
        """How long the job waited, since its submission or the loss of an attempt, and the claim itself."""
        since: float | None = assignment.queued_at
        if assignment.attempt > 1:
            with contextlib.suppress(Unavailable):
                since = await self._db.read(lambda tx: work.ready_since(tx, assignment.job_id))
        stored = stored_place(assignment.trace_context)
        told: dict[str, str | int | float | bool] = {
            "comfyui.job.id": assignment.job_id,
            "comfyui.job.attempt": assignment.attempt,
        }
        dispatched_at = assignment.dispatched_at
        if stored is not None:
            start = assignment.queued_at if since is None else since
            self._tracing.tell("job wait", under=stored, start=start, end=dispatched_at, attributes=told)
        told = {**told, "comfyui.backend": self.name}
        self._tracing.tell("job claim", under=place, start=dispatched_at, end=claimed_at, attributes=told)

    def _take_up(self, attempt: OpenAttempt) -> None:
        with self._tracing.within(attempt_place(attempt)):
            super()._take_up(attempt)

    async def _live(self, run: Run, graph: Graph) -> None:
        place = attempt_place(run.assignment)
        if place is not None:
            run.verdict.add_done_callback(partial(self._executed, run, place))
        with self._tracing.within(place):
            await super()._live(run, graph)

    def _executed(self, run: Run, place: Place, ended: "asyncio.Future[Verdict]") -> None:
        """The prompt's time on the backend; of an adopted one, the part that was seen from here."""
        started = run.watch.started_at
        if ended.cancelled() or started is None or isinstance(ended.result(), Fenced):
            return
        now = self._clock.now()
        self._tracing.tell(
            "job execute",
            under=place,
            start=now - (self._clock.monotonic() - started),
            end=now,
            fault=_fault(ended.result()),
            attributes={
                "comfyui.job.id": run.assignment.job_id,
                "comfyui.backend": self.name,
                "comfyui.adopted": run.adopted,
                "comfyui.nodes": len(run.graph),
                "comfyui.nodes.cached": len(run.cached),
            },
        )


def _fault(verdict: Verdict) -> str | None:
    """In words of this program; what a node said is not among them."""
    match verdict:
        case Produced():
            return None
        case Broke():
            return Code.OUT_OF_MEMORY.value if verdict.failure.out_of_memory else Code.EXECUTION_FAILED.value
        case Declined(error=error):
            return error.code.value
        case Lost(reason=reason):
            return reason
        case Untrue():
            return Code.OUTPUT_INVALID.value
        case _:
            return "stopped"
