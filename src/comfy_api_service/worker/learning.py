"""What a run tells of how long work takes: the means by which jobs are priced."""

from collections.abc import Mapping

from comfy_api_service.domain.graph import Graph, pixel_steps
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.verdict import Produced


def learned(
    assignment: Assignment, produced: Produced, graph: Graph, *, loading: float
) -> Mapping[str, float]:
    """Seconds by the key of a mean; nothing from a run that was answered from the cache.

    `loading`: seconds of the run in which models were loaded.
    """
    seconds = produced.seconds
    samplers = [node for node, spec in graph.items() if "steps" in spec.get("inputs", {})]
    if seconds is None or any(node in produced.cached for node in samplers or graph):
        return {}
    working = max(seconds - loading, 0.001)
    means = {assignment.timing_key: working, "all": seconds}
    work = _known_work(assignment, graph)
    if work > 0:
        means["unit"] = working / work
    if assignment.model is not None:
        if work > 0:
            means[f"unit:{assignment.model}"] = working / work
        if loading > 0.01:
            means[f"load:{assignment.model}"] = loading
    return means


def _known_work(assignment: Assignment, graph: Graph) -> float:
    """Pixel-steps; 0 of a graph that samples nothing, and of one that pictures decide, whose sizes are not known."""
    work = pixel_steps(graph)
    other = pixel_steps(graph, {one.node_id: (64, 64) for one in assignment.inputs})
    return work if work == other else 0.0
