"""From a verdict to the job's state: the decisions that follow from how an attempt ended."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, OutputInvalid, OutputMissing, job_error
from comfy_api_service.comfyui.message_types import Output
from comfy_api_service.db.endings import Ending, deadline_error
from comfy_api_service.db.transitions import AttemptKey
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.job import CacheUse, JobError, State, Status
from comfy_api_service.media.errors import MediaError
from comfy_api_service.storage.base import StorageError
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.collect import Collected, Collector, TooMuch
from comfy_api_service.worker.learning import learned
from comfy_api_service.worker.parcel import Parcel
from comfy_api_service.worker.parking import Parking
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.run import Fetching, Run
from comfy_api_service.worker.verdict import Broke, Declined, Lost, Produced, Stopped, Untrue, Verdict

log = structlog.get_logger()

STORING_AFTER_SECONDS: Final = 0.1
"""A result that is stored sooner spares the write that gives the account's slot back early."""
PARK_AGAIN_SECONDS: Final = 1.0
PUBLISH_SECONDS: Final = 0.5
"""How long a result that is none may take to be stored, before that is broken off."""

_COUNTED: Final = frozenset({"image", "animation", "video"})
"""Kinds that are pictures of an allowance, one each: what a graph is estimated by."""


class Settler:
    def __init__(
        self,
        collector: Collector,
        reporter: Reporter,
        clock: Clock,
        *,
        parking: Parking | None,
        retention: float,
        job_timeout: float,
    ) -> None:
        """`parking`: where results wait while the store is away, None where that would be the store's own disk;
        `retention`: seconds that artifacts are kept.
        """
        self._collector = collector
        self._parking = parking
        self._reporter = reporter
        self._clock = clock
        self._retention = retention
        self._job_timeout = job_timeout

    @property
    def storage_fails(self) -> bool:
        """Whether results wait for the store."""
        return self._collector.storage_fails

    async def expect(self, run: Run) -> None:
        """Let the store prepare itself while the prompt runs."""
        await self._collector.expect(run.assignment)

    def fetch(self, run: Run, client: ComfyClient) -> None:
        """Begin to store what the socket told of, before the prompt has ended: a success will want it."""
        if run.fetching is None:
            run.fetching = self._fetch(run.assignment, run.outputs, client)

    def _fetch(self, assignment: Assignment, outputs: Sequence[Output], client: ComfyClient) -> Fetching:
        keys: list[str] = []
        collecting = self._collector.collect(client, assignment, outputs, keys)
        return Fetching(outputs, keys, asyncio.create_task(collecting))

    async def _drop(self, run: Run) -> None:
        """What was fetched for a success that is none, or another one."""
        fetching, run.fetching = run.fetching, None
        if fetching is None:
            return
        await self._discard(run.assignment, fetching, mine=True)

    async def _discard(self, assignment: Assignment, fetching: Fetching, *, mine: bool = False) -> None:
        """Remove what stands in the store of a result that is none."""
        # A file that is cut off in the very moment in which it is published would stay, unknown to all.
        await asyncio.wait((fetching.task,), timeout=PUBLISH_SECONDS)
        fetching.task.cancel()
        await asyncio.wait((fetching.task,))
        if not fetching.task.cancelled():
            fetching.task.exception()  # looked at: asyncio reports it as a fault otherwise
        if fetching.keys:
            await self._collector.discard(
                assignment, await self._reporter.left_over(assignment, fetching.keys, mine=mine)
            )
        await self._collector.forget(assignment)

    def holds(self, attempt: AttemptKey) -> bool:
        """Whether this attempt's result waits for the store, and the backend has no part in it any more."""
        return self._parking is not None and self._parking.holds(attempt)

    async def settle(self, run: Run, verdict: Verdict, client: ComfyClient, graph: Graph) -> None:
        """Write what follows; where the attempt was replaced, remove what it left."""
        try:
            await self._settle(run, verdict, client, graph)
        except Exception:
            await self._tidy(run.assignment)
            raise
        await self._tidy(run.assignment)

    async def _tidy(self, assignment: Assignment) -> None:
        """Not after a cancel: the process ends, perhaps just when the parcel was written that its files need."""
        if self._parking is not None:
            await self._parking.tidy(assignment.fence.key)

    async def _settle(self, run: Run, verdict: Verdict, client: ComfyClient, graph: Graph) -> None:
        await run.marked()
        if not isinstance(verdict, Produced):
            await self._drop(run)
            await self._collector.forget(run.assignment)
        held = True
        match verdict:
            case Produced():
                held = await self._produced(run, verdict, client, graph)
            case Broke():
                held = await self._broke(run.assignment, verdict, client)
            case Stopped():
                held = await self._stopped(run, verdict)
            case Declined(error=error):
                held = await self._fail(run.assignment, error, None)
            case Lost():
                held = await self._reporter.requeue(run.assignment, verdict)
            case Untrue(reason=reason):
                log.warning("backend_untrue", job_id=run.assignment.job_id, reason=reason)
                held = await self._fail(
                    run.assignment, JobError(Code.OUTPUT_INVALID, reason), verdict.seconds
                )
                await run.remove()
            case _:
                held = False
        if not held:
            log.warning("attempt_replaced", job_id=run.assignment.job_id, attempt=run.assignment.attempt)
            if await self._reporter.is_closed(run.assignment):  # else another worker follows the prompt
                await run.remove()

    async def _produced(self, run: Run, produced: Produced, client: ComfyClient, graph: Graph) -> bool:
        assignment = run.assignment
        if run.fetching is not None and run.fetching.outputs != produced.outputs:
            await self._drop(run)
        fetching = run.fetching or self._fetch(assignment, produced.outputs, client)
        run.fetching = None
        collected = await self._collected(run, produced, fetching)
        if not isinstance(collected, Collected):
            await self._discard(assignment, fetching)
            return collected
        if not collected.artifacts:
            await self._collector.forget(assignment)
        if not collected.artifacts and not collected.values:
            error = JobError(Code.OUTPUT_INVALID, "The backend gave no output.")
            return await self._fail(assignment, error, produced.seconds)
        parcel = self._parcel(run, produced, collected, graph)
        return await self._park(run, parcel) if parcel.keys else await self._succeed(assignment, parcel)

    async def _collected(self, run: Run, produced: Produced, fetching: Fetching) -> Collected | bool:
        """What was fetched; or, with the job's end or return to the queue written, whether the attempt was held."""
        assignment, collecting = run.assignment, fetching.task
        try:
            done, _ = await asyncio.wait((collecting,), timeout=STORING_AFTER_SECONDS)
            if not done and not await self._reporter.storing(assignment):
                return False
            if not done and not await _before(run.halt, collecting):
                return await self._stopped(run, Stopped(produced.seconds))
            return collecting.result()
        except OutputMissing:
            return await self._reporter.requeue(assignment, Lost("output missing"))
        except TooMuch as fault:
            error = JobError(Code.OUTPUT_LIMIT_EXCEEDED, f"The job gave {fault}.")
            return await self._fail(assignment, error, produced.seconds)
        except (OutputInvalid, MediaError) as fault:
            error = JobError(Code.OUTPUT_INVALID, "The backend's output is not what it should be.")
            log.warning("output_invalid", job_id=assignment.job_id, fault=type(fault).__name__)
            return await self._fail(assignment, error, produced.seconds)
        except BackendError:
            return await self._reporter.requeue(assignment, Lost("output unreachable"))
        except asyncio.CancelledError:
            collecting.cancel()
            raise

    def _parcel(self, run: Run, produced: Produced, collected: Collected, graph: Graph) -> Parcel:
        assignment = run.assignment
        pictures = sum(artifact.kind in _COUNTED for artifact in collected.artifacts)
        keys = [artifact.key for artifact in collected.artifacts]
        return Parcel(
            job_id=assignment.job_id,
            attempt=assignment.attempt,
            worker_id=assignment.worker_id,
            artifacts=collected.artifacts,
            keys=frozenset() if self._parking is None else self._parking.parked(keys),
            values=collected.values,
            cache=_cache_use(produced, graph),
            # More than was reserved may be a lie, and would overdraw the allowance.
            produced=min(pictures or assignment.images, assignment.images),
            backend_seconds=produced.seconds,
            measured=learned(assignment, produced, graph, loading=sum(run.load_seconds.values())),
            images=assignment.images,
            made_at=self._clock.now(),
            dispatched_at=assignment.dispatched_at,
            trace_context=assignment.trace_context,
        )

    async def _succeed(self, assignment: Assignment, parcel: Parcel) -> bool:
        ending = parcel.ending(self._clock.now() + self._retention)
        status = await self._reporter.finish(assignment, ending, parcel.measured)
        if status is not Status.SUCCEEDED:
            keys = [artifact.key for artifact in parcel.artifacts]
            await self._collector.discard(assignment, await self._reporter.left_over(assignment, keys))
        return status is not None

    async def _park(self, run: Run, parcel: Parcel) -> bool:
        """The store is away: the job stays in `storing`, and its result waits where no backend is needed for it."""
        if not await self._reporter.storing(run.assignment):
            return False
        while self._parking is not None and not run.halt.is_set():
            try:
                await self._parking.keep(parcel)
            except StorageError as fault:
                log.warning("parking_failed", job_id=parcel.job_id, reason=str(fault))
                await asyncio.sleep(PARK_AGAIN_SECONDS)
            else:
                return True
        return await self._stopped(run, Stopped(parcel.backend_seconds))

    async def _broke(self, assignment: Assignment, broke: Broke, client: ComfyClient) -> bool:
        error = job_error(broke.failure)
        if not broke.failure.out_of_memory:
            return await self._fail(assignment, error, broke.seconds)
        with contextlib.suppress(BackendError):
            await client.free()
        return await self._reporter.requeue(assignment, Lost("out of memory"), out_of_memory=error)

    async def _stopped(self, run: Run, stopped: Stopped) -> bool:
        """Stopped by us, for a reason that is known; or by somebody beside us: then it runs again."""
        why = run.why
        if why is None:
            return await self._reporter.requeue(run.assignment, Lost("interrupted"))
        ran = run.watch.started_at is not None
        if why.kind == "canceled":
            charge = run.assignment.images if ran else 0
            ending = Ending(
                State.CANCELED, produced=charge, backend_seconds=stopped.seconds, outcome="canceled"
            )
            return await self._reporter.finish(run.assignment, ending) is not None
        error = (
            deadline_error()
            if why.kind == "deadline"
            else JobError(Code.JOB_TIMEOUT, f"The job ran longer than {self._job_timeout:g} seconds.")
        )
        return await self._fail(run.assignment, error, stopped.seconds)

    async def _fail(self, assignment: Assignment, error: JobError, seconds: float | None) -> bool:
        ending = Ending(State.FAILED, error=error, backend_seconds=seconds, outcome=error.code.lower())
        return await self._reporter.finish(assignment, ending) is not None


async def _before(halt: asyncio.Event, task: asyncio.Task[Collected]) -> bool:
    """Whether the task is done before the halt."""
    halted = asyncio.create_task(halt.wait())
    try:
        await asyncio.wait((task, halted), return_when=asyncio.FIRST_COMPLETED)
    finally:
        halted.cancel()
    return task.done()


def _cache_use(produced: Produced, graph: Graph) -> CacheUse:
    cached = produced.cached & graph.keys()
    if not cached:
        return CacheUse.NONE
    return CacheUse.FULL if len(cached) == len(graph) else CacheUse.PARTIAL
