"""How large a graph's values grow while it runs: bounds against graphs that are small and make monsters."""

import re
from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.domain.checking.links import Wiring
from comfy_api_service.domain.checking.rules import Findings, Rules
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import Work

_JOINS: Final = re.compile(r"Concat|Combine|Batch|Stitch|Join|Merge|Append|StringReplace")
"""In the names of classes whose output is as large as all that they are given."""
_MOST: Final = 10**9


def check_growth(
    graph: Mapping[str, Mapping[str, Any]], wiring: Wiring, rules: Rules, findings: Findings
) -> None:
    """Finds what is joined too often. The graph has no circles, and `wiring` is of it or of more."""
    joined = max(_weights(graph, wiring).values(), default=1)
    if joined > rules.max_joined:
        findings.add(
            f"values are joined with each other more than {rules.max_joined} times over",
            code=Code.COST_LIMIT_EXCEEDED,
            bound=rules.max_joined,
        )


def check_work(graph: Mapping[str, Mapping[str, Any]], work: Work, rules: Rules, findings: Findings) -> None:
    """Finds batches that are too large, and too many pictures."""
    if work.largest_batch > rules.max_pixels:
        findings.add(
            f"width, height and number of pictures make more than {rules.max_pixels} pixels at once",
            work.largest_node,
            graph[work.largest_node]["class_type"],
            code=Code.COST_LIMIT_EXCEEDED,
            bound=rules.max_pixels,
        )
    if work.pictures > rules.max_pictures:
        findings.add(
            f"the graph gives {work.pictures} pictures, more than {rules.max_pictures}",
            code=Code.COST_LIMIT_EXCEEDED,
            value=work.pictures,
            bound=rules.max_pictures,
        )


def _weights(graph: Mapping[str, Mapping[str, Any]], wiring: Wiring) -> dict[str, int]:
    """How many single values each node's output is made of; nothing if no node of the graph joins."""
    joining = {
        node_id
        for node_id, node in graph.items()
        if len(wiring.sources[node_id]) > 1 and _JOINS.search(node["class_type"])
    }
    weights: dict[str, int] = {}
    for node_id in wiring.order if joining else ():
        if node_id in graph:
            given = [weights[source] for source in wiring.sources[node_id]]
            total = sum(given) if node_id in joining else max(given, default=1)
            weights[node_id] = min(total, _MOST)
    return weights
