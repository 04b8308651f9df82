"""How much a graph will produce and how much work that is: estimates, for quotas and fair shares.

They rest on the shapes that `shapes.py` gives each node. A graph that makes no sense gives an estimate too, never an
error.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of, is_link
from comfy_api_service.domain.graph.shapes import MAX_PICTURES, Shapes, is_sampler

MAX_PIXEL_STEPS: Final = 1e15
"""A million steps at 32 768 pixels squared: nothing real comes near it."""

_DEFAULT_STEPS: Final = 20
_PICTURE_OUTPUTS: Final = frozenset({"SaveImage", "PreviewImage", "SaveImageWebsocket"})
_ONE_FILE: Final = ("Animated", "WEBM", "Video", "Audio", "Text", "Any", "3D", "GLB", "Latent")
Sizes = Mapping[str, tuple[int, int]]
"""Node → (width, height) of the picture that it opens. One that is missing is taken for 512 by 512."""


class Work(NamedTuple):
    """All that is estimated of a graph."""

    pictures: int
    """As `pictures_in` tells it."""
    pixel_steps: float
    """As `pixel_steps` tells it."""
    largest_node: str
    """The node that gives the largest batch; "" for a graph without nodes."""
    largest_batch: float
    """Its width · height · pictures · frames."""


def work_of(graph: Graph, sizes: Sizes | None = None) -> Work:
    """All estimates at once, for the price of one."""
    shapes = Shapes(graph, sizes or {})
    largest = max(shapes.of, key=lambda node_id: shapes.of[node_id].size, default="")
    batch = shapes.of[largest].size if largest else 0
    return Work(_pictures(graph, shapes), _pixel_steps(graph, shapes), largest, batch)


def pictures_in(graph: Graph, sizes: Sizes | None = None) -> int:
    """How many images the graph will produce: 1…MAX_PICTURES.

    The sum over the nodes that save or show pictures of the pictures that reach them, frames of videos among them; one
    for each animation or video file. Lists that custom nodes make cannot be counted: a node of unknown class counts
    what reaches it when its name begins with Save or Preview and it has a picture input, and makes none of its own.
    """
    return work_of(graph, sizes).pictures


def pixel_steps(graph: Graph, sizes: Sizes | None = None) -> float:
    """Width · height · pictures · frames · steps, summed over the samplers: 0…MAX_PIXEL_STEPS.

    Pixels are those of the picture that the latent stands for. 0 for a graph without a sampler. Steps are
    those of the node, of the part between `start_at_step` and `end_at_step`, or of the scheduler that its
    sigmas come from.
    """
    return work_of(graph, sizes).pixel_steps


def _pictures(graph: Graph, shapes: Shapes) -> int:
    total = 0
    for node_id, node in graph.items():
        name = class_of(node)
        if name in _PICTURE_OUTPUTS:
            total += shapes.of[node_id].saved
        elif name.startswith(("Save", "Preview")) or name == "VHS_VideoCombine":
            one = name == "VHS_VideoCombine" or any(word in name for word in _ONE_FILE)
            if not inputs_of(node).keys().isdisjoint(("images", "image", "video")):
                total += shapes.of[node_id].items if one else shapes.of[node_id].saved
    return max(1, min(total, MAX_PICTURES))


def _pixel_steps(graph: Graph, shapes: Shapes) -> float:
    total = sum(
        shapes.of[node_id].size * _steps(graph, node, shapes)
        for node_id, node in graph.items()
        if is_sampler(class_of(node), inputs_of(node))
    )
    return min(float(total), MAX_PIXEL_STEPS)


def _steps(graph: Graph, node: Mapping[str, Any], shapes: Shapes) -> float:
    inputs = inputs_of(node)
    holder = inputs
    if "steps" not in inputs and is_link(inputs.get("sigmas")):
        holder = inputs_of(graph.get(inputs["sigmas"][0]))
    steps = shapes.number(holder.get("steps"), _DEFAULT_STEPS, 1)
    first = shapes.number(inputs.get("start_at_step"), 0, 0, steps, untold=0)
    last = shapes.number(inputs.get("end_at_step"), steps, 0, steps)
    return max(1.0, last - first)
