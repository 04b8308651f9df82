"""The graph that is posted for an attempt; compiled now, if no inventory was known when the job was accepted."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from comfy_api_service.db import transitions
from comfy_api_service.db.requirements import ensure_requirements
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.compilation import Compiled
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.domain.graph import Graph, for_attempt
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.job import JobError
from comfy_api_service.domain.upload import JobInput
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.verdict import Declined, Lost

PATIENCE_SECONDS = 15.0
"""After the start: how long a model that nobody has told of yet may be one that a slower backend has."""
PAUSE_SECONDS = 0.5
CompileLate = Callable[[Mapping[str, Any]], Compiled]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The assignment with all that its graph settled, and the graph to post."""

    assignment: Assignment
    graph: Graph


class Preparation:
    def __init__(
        self,
        compile_late: CompileLate,
        pool_is_known: Callable[[], bool],
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        """`compile_late` makes a graph of a job's stored parameters, with what the pool has now;
        `pool_is_known`: every registered backend has told what it has.
        """
        self._compile_late = compile_late
        self._pool_is_known = pool_is_known
        self._reporter = reporter
        self._clock = clock
        self._began_at = clock.monotonic()

    async def prepare(
        self, assignment: Assignment, inventory: Inventory | None
    ) -> Prepared | Declined | Lost:
        """What to post to the backend with this inventory, or why nothing can be posted to it."""
        if assignment.graph is not None:
            return Prepared(assignment, attempt_graph(assignment, assignment.graph))
        try:
            compiled = self._compile_late(assignment.params)
        except ServiceError as refusal:
            if not self._pool_is_known() and self._clock.monotonic() - self._began_at < PATIENCE_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)
                return Lost("inventory unknown", unsent=True)
            return Declined(JobError(refusal.code, refusal.message, refusal.details))
        if compiled.graph is None or inventory is None:
            return Lost("inventory unknown", unsent=True)
        inputs = tuple(JobInput(one.node_id, one.input, one.value) for one in compiled.files)
        brought = {one.upload_id for one in assignment.inputs}
        if not {one.upload_id for one in inputs} <= brought:  # those were found to be the caller's own
            return Declined(
                JobError(Code.INVALID_INPUT, "The graph names a file that was not brought with it.")
            )
        now = self._clock.now()
        need = compiled.requirement
        await self._reporter.persist(lambda tx: ensure_requirements(tx, {need.id: need}, now))
        if not inventory.satisfies(need):
            return Lost("another backend has the model", unsent=True, requirement_id=need.id)
        graph = compiled.graph
        await self._reporter.persist(
            lambda tx: transitions.keep_compiled(
                tx,
                assignment.fence,
                requirement_id=need.id,
                graph=graph,
                params=compiled.params,
                images=compiled.images,
                timing_key=compiled.timing_key,
                inputs=inputs,
            )
        )
        known = replace(
            assignment,
            params=compiled.params,
            images=compiled.images,
            timing_key=compiled.timing_key,
            model=need.primary,
            inputs=inputs,
        )
        return Prepared(known, for_attempt(graph, known.job_id, known.attempt))


def attempt_graph(assignment: Assignment, stored: bytes) -> Graph:
    """The stored graph, as this attempt sends it."""
    graph: Graph = orjson.loads(stored)
    return for_attempt(graph, assignment.job_id, assignment.attempt)
