"""How an attempt's time on a backend ended. Values; what follows from each is decided in `settle.py`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from comfy_api_service.comfyui.message_types import Failed, Output
from comfy_api_service.comfyui.views import HistoryEntry, Outcome
from comfy_api_service.domain.graph import Graph, is_same_graph
from comfy_api_service.domain.job import JobError


@dataclass(frozen=True, slots=True)
class Produced:
    """The prompt ran to its end; `outputs` in the order of their nodes (see `in_order`)."""

    outputs: Sequence[Output]
    cached: frozenset[str] = frozenset()
    seconds: float | None = None
    """From start to end on the backend; None if nobody saw it."""


@dataclass(frozen=True, slots=True)
class Broke:
    """A node failed."""

    failure: Failed
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The prompt was interrupted, or taken out of the backend's queue."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The backend refused the graph; nothing ran."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody will tell what became of the prompt; the job may run again.

    `unsent`: it never reached the backend. `refused`: the backend answered it, or a file that it needs,
    with an error of its own. `backend_died`: the backend went down with it.
    """

    reason: str
    unsent: bool = False
    refused: bool = False
    backend_died: bool = False
    requirement_id: str | None = None


@dataclass(frozen=True, slots=True)
class Untrue:
    """What the backend tells of the prompt cannot be, or is more than is taken: it gives no result."""

    reason: str
    """A sentence that is safe to show."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fenced:
    """Somebody replaced this attempt: change nothing, remove what was posted."""


Verdict = Produced | Broke | Stopped | Declined | Lost | Untrue | Fenced


def in_order(outputs: Iterable[Output], promised: Sequence[str]) -> tuple[Output, ...]:
    """The outputs in the order of the graph's output nodes, those of one node as they came.

    ComfyUI runs output nodes in the order of a set, another one in each process: a result must not depend on it.
    """
    places = {node: place for place, node in enumerate(promised)}
    return tuple(sorted(outputs, key=lambda output: places.get(output.node, len(places))))


def from_history(
    entry: HistoryEntry, promised: Sequence[str], graph: Graph, free: Collection[tuple[str, str]] = ()
) -> Verdict:
    """What a history entry says; one without all promised outputs is no success, and neither is another graph's.

    `graph` is what was sent, but for the inputs that are `free`; an empty one is not known.
    """
    seconds = None
    if entry.started_at is not None and entry.ended_at is not None:
        seconds = max(entry.ended_at - entry.started_at, 0.0)
    if entry.outcome is Outcome.SUCCESS:
        missing = set(promised) - set(entry.promised)
        if missing:
            return Lost("outputs missing")
        if graph and not is_same_graph(graph, entry.graph, free):
            return Untrue("The backend ran another graph than it was sent.", seconds)
        return Produced(in_order(entry.outputs.values(), promised), frozenset(entry.cached), seconds)
    if entry.outcome is Outcome.INTERRUPTED or entry.error is None:
        return Stopped(seconds)
    return Broke(entry.error, seconds)


@dataclass(frozen=True, slots=True)
class Why:
    """Why a prompt is being stopped; the first reason stands."""

    kind: str
    """canceled, deadline or timeout."""
    details: Mapping[str, object] = field(default_factory=dict)
