"""What a graph's run takes as long as: graphs of one kind differ in texts, seeds and pictures alone."""

import hashlib
from typing import Final

from comfy_api_service.domain.graph.form import Graph, canonical, class_of, inputs_of, is_link
from comfy_api_service.domain.graph.loaders import model_of

_FREE: Final = frozenset({"seed", "noise_seed", "filename_prefix"})


def kind_of_work(graph: Graph) -> str:
    """Equal for graphs with the same nodes, links, models and numbers, whatever their texts and seeds; 32 hex digits.

    Names of nodes count: a template keeps them, and its runs are what is measured.
    """
    told = {
        node_id: [
            class_of(node),
            {
                name: value
                for name, value in inputs_of(node).items()
                if name not in _FREE and (is_link(value) or _counts(class_of(node), name, value))
            },
        ]
        for node_id, node in graph.items()
    }
    return hashlib.sha256(canonical(told)).hexdigest()[:32]


def _counts(class_name: str, name: str, value: object) -> bool:
    """A number, a switch, or a model's name."""
    return isinstance(value, int | float) or model_of(class_name, name, value) is not None
