"""What shape of batch each node of a graph gives on: sizes, pictures, frames, by what its inputs are called.

Estimates: nodes that make, scale, join, cut or repeat latents and pictures are known by class or by their inputs'
names; any other node passes on what its picture or latent inputs have. A number that is linked is the primitive's,
or what GetImageSize measures. Another of ComfyUI's own nodes may give any number: it counts as `UNTOLD`. Of a custom
node the input's usual value is supposed: whoever may use custom nodes may make batches that nobody can tell.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from comfy_api_service.domain.graph.form import Graph, class_of, inputs_of, is_link
from comfy_api_service.domain.node_policy import CORE

UNTOLD: Final = 10**9
"""More than any number of a graph is: what stands for one that nothing bounds, and the most that is counted."""
MAX_PICTURES: Final = 100_000

_SIDE: Final = 512
_MODEL_FACTOR: Final = 4
"""What nearly all upscale models enlarge by."""
_FLOWS: Final = (
    ("latent_image",),
    ("samples", "latents", "samples1", "samples2", "samples_to", "samples_from"),
    ("latent",),
    ("images", "image", "pixels", "image1", "image2", "destination", "source"),
)
"""Inputs that carry the picture itself: of the first group that has a link, all."""
_SUMS: Final = frozenset({"ImageBatch", "LatentBatch"})
_WIDENS: Final = re.compile(r"Stitch|LatentConcat")
_MEASURES: Final = "GetImageSize"
_REBATCHES: Final = frozenset({"RebatchLatents", "RebatchImages"})
_CUTS: Final = frozenset({"LatentFromBatch", "ImageFromBatch"})
_MODEL_SCALES: Final[Mapping[str, int]] = {"ImageUpscaleWithModel": _MODEL_FACTOR, "LTXVLatentUpsampler": 2}


class Shape(NamedTuple):
    """Of all that a node gives in a run."""

    width: float = _SIDE
    height: float = _SIDE
    pictures: int = 1
    frames: int = 1
    """Of each of the pictures."""
    items: int = 1
    """Batches that the pictures are divided in: the nodes behind run once for each."""

    @property
    def saved(self) -> int:
        """Pictures and frames, which are pictures too when they are saved as such."""
        return min(self.pictures * self.frames, MAX_PICTURES)

    @property
    def size(self) -> float:
        """Pixels of everything."""
        return self.width * self.height * self.pictures * self.frames


_UNKNOWN: Final = Shape()


class Shapes:
    """The shapes of a graph's nodes, each worked out once, whatever the depth; circles end as unknown."""

    def __init__(self, graph: Graph, sizes: Mapping[str, tuple[int, int]]) -> None:
        """`sizes`: node → (width, height) of the file that it opens, as far as they are known."""
        self._graph = graph
        self._sizes = sizes
        self.of: dict[str, Shape] = {}
        opened: set[str] = set()
        for start in graph:
            waiting = [start]
            while waiting:
                node_id = waiting[-1]
                if node_id in self.of:
                    waiting.pop()
                    continue
                before = self._linked(node_id)
                missing = [one for one in before.values() if one not in self.of and one not in opened]
                if missing:
                    opened.add(node_id)
                    waiting.extend(missing)
                    continue
                self.of[node_id] = self._shape(node_id, before)
                waiting.pop()

    def number(
        self, value: object, default: float, least: float, most: float = UNTOLD, untold: float = UNTOLD
    ) -> float:
        """The value as ComfyUI would read it (`"64"` is 64, true is 1), in bounds; the default if it is none."""
        if is_link(value):
            value = self._given(value, untold)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return default
        if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            return default
        return min(max(value, least), most)

    def _given(self, link: list[Any], untold: float) -> object:
        """What a link to a number gives; None if it comes from a custom node."""
        value: object = link
        for _ in self._graph:
            if not is_link(value):
                return value
            source = self._graph.get(value[0])
            name = class_of(source)
            if name == _MEASURES:
                measured = self.of.get(value[0], _UNKNOWN)
                sides = {0: measured.width, 1: measured.height}
                return sides.get(value[1], measured.pictures * measured.frames)
            if name in CORE and not name.startswith("Primitive"):
                return untold
            value = inputs_of(source).get("value")
        return untold if is_link(value) else value

    def _whole(self, value: object, least: int) -> int:
        return int(self.number(value, least, least))

    def _linked(self, node_id: str) -> dict[str, str]:
        return {
            name: value[0]
            for name, value in inputs_of(self._graph[node_id]).items()
            if is_link(value) and value[0] in self._graph
        }

    def _shape(self, node_id: str, before: Mapping[str, str]) -> Shape:
        node = self._graph[node_id]
        name, inputs = class_of(node), inputs_of(node)
        if node_id in self._sizes:
            width, height = self._sizes[node_id]
            return Shape(width, height)
        linked = {key: self.of.get(source, _UNKNOWN) for key, source in before.items()}
        group = next((group for group in _FLOWS if any(key in linked for key in group)), ())
        runs = 1 if name in _REBATCHES else max((one.items for one in linked.values()), default=1)
        flows = [_repeated(linked[key], runs) for key in linked if key in group or not group]
        shape = _wrapped(flows) if group else max(flows, key=lambda s: (s.pictures, s.size), default=_UNKNOWN)
        if len(flows) > 1 and _WIDENS.search(name):
            shape = self._widened(shape, flows, inputs)
        shape = self._counted(name, inputs, shape._replace(items=runs), flows, flowing=bool(group))
        shape = self._sized(name, inputs, shape)
        return shape._replace(
            width=min(shape.width, UNTOLD),
            height=min(shape.height, UNTOLD),
            pictures=max(1, min(shape.pictures, MAX_PICTURES)),
        )

    def _counted(
        self, name: str, inputs: Mapping[str, Any], shape: Shape, flows: list[Shape], *, flowing: bool
    ) -> Shape:
        """With the pictures and frames that the node makes of those that it is given."""
        sized = "width" in inputs and "height" in inputs
        if name in _SUMS:
            shape = shape._replace(pictures=sum(one.saved for one in flows) or 1, frames=1)
        elif name in _REBATCHES:
            each = self.number(inputs.get("batch_size"), 1, 1, untold=1)
            before = max((one.items for one in flows), default=1)
            items = math.ceil(shape.saved / each) + (before if before > 1 else 0)
            shape = shape._replace(items=min(items, shape.saved))
        elif name.startswith("Repeat") and "amount" in inputs:
            shape = shape._replace(pictures=shape.pictures * self._whole(inputs["amount"], 1))
        elif name in _CUTS:
            kept = self._whole(inputs.get("length"), 1) * shape.items
            if name == "ImageFromBatch":
                shape = shape._replace(pictures=shape.saved, frames=1)
            shape = shape._replace(pictures=min(shape.pictures, kept))
        elif "batch_size" in inputs and not (flowing and not sized):  # with a picture alone: its chunks
            made = self._whole(inputs["batch_size"], 1) * shape.items
            shape = shape._replace(pictures=max(made, shape.pictures if flowing else 1))
        if name not in _CUTS and (sized or "Video" in name):
            frames = [self._whole(inputs[key], 1) for key in ("length", "video_frames") if key in inputs]
            if "layers" in inputs:  # and the picture that they make together
                frames.append(self._whole(inputs["layers"], 1) + 1)
            if frames:
                shape = shape._replace(frames=max(frames))
        return shape

    def _sized(self, name: str, inputs: Mapping[str, Any], shape: Shape) -> Shape:
        if "width" in inputs and "height" in inputs and not is_sampler(name, inputs):
            return _to(shape, self.number(inputs["width"], 0, 0), self.number(inputs["height"], 0, 0))
        if name == "ResizeAndPadImage":
            sides = (self.number(inputs.get(f"target_{side}"), _SIDE, 1) for side in ("width", "height"))
            return _to(shape, *sides)
        if name == "ImageScaleToTotalPixels":
            pixels = self.number(inputs.get("megapixels"), 1, 0.01) * 2**20
            return _by(shape, math.sqrt(pixels / max(shape.width * shape.height, 1)))
        if name == "ImageScaleToMaxDimension":
            largest = self.number(inputs.get("largest_size"), _SIDE, 0)
            return _by(shape, (largest or _SIDE) / max(shape.width, shape.height, 1))
        if "scale_by" in inputs or name in _MODEL_SCALES:
            by = inputs.get("scale_by") if "scale_by" in inputs else _MODEL_SCALES[name]
            return _by(shape, self.number(by, _MODEL_FACTOR, 0.01))
        if name == "ImagePadForOutpaint":
            left, top, right, bottom = (
                self.number(inputs.get(side), 0, 0) for side in ("left", "top", "right", "bottom")
            )
            return shape._replace(width=shape.width + left + right, height=shape.height + top + bottom)
        return shape

    def _widened(self, shape: Shape, flows: list[Shape], inputs: Mapping[str, Any]) -> Shape:
        """Side by side or one above the other; a picture of another size is first scaled to fit the first."""
        first, *others = flows
        space = self.number(inputs.get("spacing_width"), 0, 0) * len(others)
        width, height = first.width + space, first.height + space
        for one in others:
            width += max(one.width, one.width * first.height / max(one.height, 1))
            height += max(one.height, one.height * first.width / max(one.width, 1))
        if inputs.get("direction") in ("up", "down"):
            return shape._replace(height=height)
        return shape._replace(width=width)


def is_sampler(name: str, inputs: Mapping[str, Any]) -> bool:
    """True if a node of this class, with these inputs, makes steps with a latent."""
    return "Sampler" in name and bool({"latent_image", "latent", "samples"} & inputs.keys())


def _repeated(shape: Shape, runs: int) -> Shape:
    """What a node takes of it in so many runs: what comes in fewer batches is taken again and again."""
    return shape if runs in (shape.items, 1) else shape._replace(pictures=shape.pictures * runs)


def _wrapped(shapes: list[Shape]) -> Shape:
    """Of all the largest, side by side: ComfyUI scales and repeats the others to fit it."""
    return Shape(*(max(sides) for sides in zip(*shapes, strict=True)))


def _to(shape: Shape, width: float, height: float) -> Shape:
    """Of this size; a side of 0 keeps the proportions, as ComfyUI's own nodes do, and two change nothing."""
    if width or height:
        width = width or shape.width * height / max(shape.height, 1)
        height = height or shape.height * width / max(shape.width, 1)
        return shape._replace(width=width, height=height)
    return shape


def _by(shape: Shape, factor: float) -> Shape:
    return shape._replace(width=shape.width * factor, height=shape.height * factor)
