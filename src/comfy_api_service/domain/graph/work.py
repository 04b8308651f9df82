"""How much a graph will produce and how much work that is: heuristics, for quotas and fair shares."""
from comfy_api_service.domain.graph.form import Graph


def pictures_in(graph: Graph) -> int:
    raise NotImplementedError


def pixel_steps(graph: Graph) -> float:
    raise NotImplementedError
