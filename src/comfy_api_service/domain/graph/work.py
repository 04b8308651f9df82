"""How much a graph will produce and how much work that is: estimates, for quotas and fair shares.

Each node is given a shape (width, height, pictures, frames) by the nodes before it, in one pass. Nodes that
make, scale, cut or repeat latents and pictures are known by class or by their inputs' names; any other node
passes on what its picture or latent input has. A value that is linked is taken from the primitive it is
linked to, else a default stands for it. A graph that makes no sense gives an estimate too, never an error.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of, is_link

MAX_PICTURES: Final = 100_000
MAX_PIXEL_STEPS: Final = 1e15
"""A million steps at 32 768 pixels squared: nothing real comes near it."""

_MAX_SIDE: Final = 65_536
_MAX_BATCH: Final = 4096
_MAX_STEPS: Final = 10_000
_DEFAULT_SIDE: Final = 512
_DEFAULT_STEPS: Final = 20
_FLOWS: Final = ("latent_image", "samples", "latent", "images", "image", "pixels", "samples1", "image1")
"""Inputs that carry the picture itself, in the order in which they are looked for."""
_SUMS: Final = {"ImageBatch": ("image1", "image2"), "LatentBatch": ("samples1", "samples2")}
_PICTURE_OUTPUTS: Final = frozenset({"SaveImage", "PreviewImage", "SaveImageWebsocket"})
_ONE_FILE: Final = ("Animated", "WEBM", "Video", "Audio", "Text", "Any", "3D", "GLB", "Latent")


class _Shape(NamedTuple):
    width: float = _DEFAULT_SIDE
    height: float = _DEFAULT_SIDE
    pictures: int = 1
    frames: int = 1


_UNKNOWN: Final = _Shape()


def pictures_in(graph: Graph) -> int:
    """How many images the graph will produce: 1…MAX_PICTURES.

    The sum over the nodes that save or show pictures of the pictures that reach them; one for each animation
    or video. Lists that custom nodes make cannot be counted: a node of unknown class counts what reaches it
    when its name begins with Save or Preview and it has a picture input, and makes none of its own.
    """
    shapes = _shapes(graph)
    total = 0
    for node_id, node in graph.items():
        name = class_of(node)
        inputs = inputs_of(node)
        if name in _PICTURE_OUTPUTS:
            total += shapes[node_id].pictures
        elif name.startswith(("Save", "Preview")) or name == "VHS_VideoCombine":
            one = name == "VHS_VideoCombine" or any(word in name for word in _ONE_FILE)
            if "images" in inputs or "image" in inputs or "video" in inputs:
                total += 1 if one else shapes[node_id].pictures
    return max(1, min(total, MAX_PICTURES))


def pixel_steps(graph: Graph) -> float:
    """Width · height · pictures · frames · steps, summed over the samplers: 0…MAX_PIXEL_STEPS.

    Pixels are those of the picture that the latent stands for. 0 for a graph without a sampler. Steps are
    those of the node, of the part between `start_at_step` and `end_at_step`, or of the scheduler that its
    sigmas come from.
    """
    shapes = _shapes(graph)
    total = 0.0
    for node_id, node in graph.items():
        if not _is_sampler(node):
            continue
        shape = shapes[node_id]
        total += shape.width * shape.height * shape.pictures * shape.frames * _steps(graph, node)
    return min(total, MAX_PIXEL_STEPS)


def _is_sampler(node: Mapping[str, Any]) -> bool:
    inputs = inputs_of(node)
    return "Sampler" in class_of(node) and bool({"latent_image", "latent", "samples"} & inputs.keys())


def _steps(graph: Graph, node: Mapping[str, Any]) -> float:
    inputs = inputs_of(node)
    holder = inputs
    if "steps" not in inputs and is_link(inputs.get("sigmas")):
        holder = inputs_of(graph.get(inputs["sigmas"][0]))
    steps = _number(graph, holder.get("steps"), _DEFAULT_STEPS, 1, _MAX_STEPS)
    first = _number(graph, inputs.get("start_at_step"), 0, 0, steps)
    last = _number(graph, inputs.get("end_at_step"), steps, 0, steps)
    return max(1.0, last - first)


def _shapes(graph: Graph) -> dict[str, _Shape]:
    """The shape that each node gives on, each worked out once, whatever the depth; cycles end as unknown."""
    shapes: dict[str, _Shape] = {}
    opened: set[str] = set()
    for start in graph:
        waiting = [start]
        while waiting:
            node_id = waiting[-1]
            if node_id in shapes:
                waiting.pop()
                continue
            before = _sources(graph, graph[node_id])
            missing = [source for source in before.values() if source not in shapes and source not in opened]
            if missing:
                opened.add(node_id)
                waiting.extend(missing)
                continue
            given = {name: shapes.get(source, _UNKNOWN) for name, source in before.items()}
            shapes[node_id] = _shape(graph, graph[node_id], given)
            waiting.pop()
    return shapes


def _sources(graph: Graph, node: Mapping[str, Any]) -> dict[str, str]:
    """Input → source, for the inputs that carry the picture; all links when none is known to."""
    linked = {
        name: value[0] for name, value in inputs_of(node).items() if is_link(value) and value[0] in graph
    }
    sums = _SUMS.get(class_of(node))
    if sums is not None:
        return {name: linked[name] for name in sums if name in linked}
    for name in _FLOWS:
        if name in linked:
            return {name: linked[name]}
    return linked


def _shape(graph: Graph, node: Mapping[str, Any], given: Mapping[str, _Shape]) -> _Shape:
    name = class_of(node)
    inputs = inputs_of(node)
    shape = _largest(given)
    if name in _SUMS:
        shape = shape._replace(pictures=sum(s.pictures for s in given.values()) or 1)
    elif name.startswith("Repeat") and "amount" in inputs:
        shape = shape._replace(pictures=shape.pictures * _whole(graph, inputs["amount"], 1, _MAX_BATCH))
    elif name in ("LatentFromBatch", "ImageFromBatch"):
        shape = shape._replace(
            pictures=min(shape.pictures, _whole(graph, inputs.get("length"), 1, _MAX_BATCH))
        )
    elif "batch_size" in inputs and not given.keys() & set(_FLOWS):  # with a picture input: its chunks
        shape = shape._replace(pictures=_whole(graph, inputs["batch_size"], 1, _MAX_BATCH))
    if "Latent" in name and "Video" in name and "length" in inputs:
        shape = shape._replace(frames=_whole(graph, inputs["length"], 1, _MAX_BATCH))
    if "width" in inputs and "height" in inputs and not _is_sampler(node):
        shape = shape._replace(
            width=_number(graph, inputs["width"], 0, 0, _MAX_SIDE) or shape.width,
            height=_number(graph, inputs["height"], 0, 0, _MAX_SIDE) or shape.height,
        )
    elif "scale_by" in inputs:
        by = _number(graph, inputs["scale_by"], 1, 0.01, 64)
        shape = shape._replace(
            width=min(shape.width * by, _MAX_SIDE), height=min(shape.height * by, _MAX_SIDE)
        )
    return shape._replace(pictures=max(1, min(shape.pictures, MAX_PICTURES)))


def _largest(given: Mapping[str, _Shape]) -> _Shape:
    """What a node passes on: of its known input, or of several the one with the most pictures and pixels."""
    return max(given.values(), key=lambda s: (s.pictures, s.width * s.height), default=_UNKNOWN)


def _whole(graph: Graph, value: object, least: int, most: int) -> int:
    return int(_number(graph, value, least, least, most))


def _number(graph: Graph, value: object, default: float, least: float, most: float) -> float:
    """The value as ComfyUI would read it (`"64"` is 64, true is 1), in bounds; the default if it is none."""
    if is_link(value):
        value = inputs_of(graph.get(value[0])).get("value")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return default
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return default
    return min(max(value, least), most)
