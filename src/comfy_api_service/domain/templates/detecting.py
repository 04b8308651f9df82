"""Parameters found in a graph: inputs whose node's title begins with `$`, and those that everybody wants to set.

A title `$name` makes a parameter of the node's first value, `$name.input` of the one that is named. What is obvious:
the prompts of samplers, seeds, steps, guidance, the size of empty latents, model files, and input images.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from comfy_api_service.domain.graph import Graph, is_link
from comfy_api_service.domain.graph.form import class_of, inputs_of
from comfy_api_service.domain.graph.loaders import model_of
from comfy_api_service.domain.inventory import InputSpec, Inventory
from comfy_api_service.domain.templates.fitting import PARAMETERS_MAX
from comfy_api_service.domain.templates.template import Number, Parameter, ParameterType, Target

_TITLE: Final = re.compile(r"\$([A-Za-z][\w -]{0,63})(?:\.(\w{1,100}))?")
_SEEDS: Final = ("seed", "noise_seed")
_NUMBERS: Final = {"steps": "steps", "cfg": "cfg_scale", "guidance": "guidance", "denoise": "denoise"}
_SIZES: Final = ("width", "height", "batch_size")
_PROMPTS: Final = {"positive": "prompt", "negative": "negative_prompt", "conditioning": "prompt"}
_TEXTS: Final = ("text", "prompt", "text_g", "text_l", "clip_l", "t5xxl")
_FIRST: Final = ("text", "value", "prompt", "seed", "noise_seed", "image", "string")
"""Which value of a titled node is meant, before the first there is."""
_MODELS: Final = {
    "checkpoints": "model",
    "diffusion_models": "model",
    "unet_gguf": "model",
    "loras": "lora",
    "upscale_models": "upscale_model",
    "text_encoders": "text_encoder",
}
"""What a model of a kind is called; others by their kind."""
_DEPTH: Final = 50
"""Nodes between a sampler and its prompt."""
_LOOKS: Final = 20_000
"""Nodes that are looked at for prompts: who has more samplers than that sets their prompts by titles."""


def detect(graph: Graph, titles: Mapping[str, str], inventory: Inventory | None) -> tuple[Parameter, ...]:
    """In the order of titles, then of the graph; each input once, each name once.

    `titles`: of nodes, by id. Types and bounds are the inventory's, else guessed from the values.
    """
    found: dict[Target, Parameter] = {}
    names: dict[str, int] = {}
    for name, target in (*_titled(graph, titles, inventory), *_obvious(graph, inventory)):
        if target in found or len(found) >= PARAMETERS_MAX:
            continue
        parameter = _parameter(name, target, graph, _spec(graph, target, inventory))
        if parameter is None:
            continue
        names[name] = names.get(name, 0) + 1
        numbered = name if names[name] == 1 else f"{name}_{names[name]}"
        found[target] = replace(parameter, name=numbered)
    return tuple(found.values())


def titles_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Node id → title, of a graph in API form as the page exports it."""
    titles = {}
    for node_id, node in document.items():
        meta = node.get("_meta") if isinstance(node, Mapping) else None
        title = meta.get("title") if isinstance(meta, Mapping) else None
        if isinstance(title, str):
            titles[node_id] = title
    return titles


def _titled(
    graph: Graph, titles: Mapping[str, str], inventory: Inventory | None
) -> Iterator[tuple[str, Target]]:
    for node_id, title in titles.items():
        form = _TITLE.fullmatch(title.strip())
        if form is None or node_id not in graph:
            continue
        values = _values(graph[node_id])
        named = form[2]
        known = () if inventory is None else inventory.classes.get(class_of(graph[node_id]))
        order = list(known.inputs) if known else list(values)
        wanted = [named] if named else [name for name in (*_FIRST, *order) if name in values][:1]
        for name in wanted:
            if name in values:
                yield _plain(form[1]), Target(node_id, name)


def _obvious(graph: Graph, inventory: Inventory | None) -> Iterator[tuple[str, Target]]:
    looks = iter(range(_LOOKS))
    for node in graph.values():
        for name, called in _PROMPTS.items():
            if name in inputs_of(node):
                yield from ((called, target) for target in _prompts(graph, inputs_of(node)[name], looks))
    for node_id, node in graph.items():
        values = _values(node)
        for name in values:
            target = Target(node_id, name)
            common = _called(class_of(node), name, values, _spec(graph, target, inventory))
            if common is not None:
                yield common, target


def _called(class_name: str, name: str, values: Mapping[str, Any], spec: InputSpec | None) -> str | None:
    """What everybody calls the input, or None if few want to set it."""
    model = model_of(class_name, name, values[name])
    if model is not None:
        return _MODELS.get(model[0], _plain(model[0]))
    if (spec is not None and spec.upload == "image") or (class_name, name) in _IMAGES:
        return "mask" if class_name == "LoadImageMask" else "image"
    if name in _SEEDS:
        return "seed"
    if name in _NUMBERS and ("Sampler" in class_name or "Scheduler" in class_name or name == "guidance"):
        return _NUMBERS[name]
    if name in _SIZES and class_name.startswith("Empty") and "width" in values and "height" in values:
        return name
    return None


_IMAGES: Final = {("LoadImage", "image"), ("LoadImageMask", "image")}


def _prompts(graph: Graph, value: object, looks: Iterator[int]) -> Iterator[Target]:
    """The texts that a conditioning is made of, through whatever stands between, while there are `looks` left."""
    waiting = deque([(value, 0)])
    seen: set[str] = set()
    while waiting and next(looks, None) is not None:
        link, depth = waiting.popleft()
        if not is_link(link) or link[0] not in graph or link[0] in seen or depth > _DEPTH:
            continue
        seen.add(link[0])
        node = graph[link[0]]
        texts = [name for name in _TEXTS if isinstance(inputs_of(node).get(name), str)]
        yield from (Target(link[0], name) for name in texts)
        if not texts:
            waiting.extend((given, depth + 1) for given in inputs_of(node).values())


def _values(node: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the node itself."""
    return {
        name: value for name, value in inputs_of(node).items() if isinstance(value, str | int | float | bool)
    }


def _spec(graph: Graph, target: Target, inventory: Inventory | None) -> InputSpec | None:
    known = None if inventory is None else inventory.classes.get(class_of(graph[target.node]))
    return None if known is None else known.inputs.get(target.input)


def _parameter(name: str, target: Target, graph: Graph, spec: InputSpec | None) -> Parameter | None:
    class_name, value = class_of(graph[target.node]), inputs_of(graph[target.node])[target.input]
    made = Parameter(name, ParameterType.STRING, (target,), default=value)
    if (spec is not None and spec.upload == "image") or (class_name, target.input) in _IMAGES:
        return replace(made, type=ParameterType.IMAGE, default=None, required=True)
    model = model_of(class_name, target.input, value)
    if model is not None:
        return replace(made, type=ParameterType.MODEL, model_kind=model[0])
    if target.input in _SEEDS and type(value) is int:
        return replace(made, type=ParameterType.SEED, default=None)
    if isinstance(value, bool):
        return replace(made, type=ParameterType.BOOLEAN)
    if isinstance(value, int | float):
        return _numeric(made, spec)
    if spec is not None and spec.options:
        choices = tuple(option for option in spec.options if isinstance(option, str))
        return replace(made, type=ParameterType.ENUM, choices=choices) if value in choices else None
    return made


def _numeric(made: Parameter, spec: InputSpec | None) -> Parameter:
    low: Number | None = None if spec is None else spec.minimum
    high: Number | None = None if spec is None else spec.maximum
    whole = spec.type == "INT" if spec is not None else type(made.default) is int
    kind = ParameterType.INTEGER if whole else ParameterType.NUMBER
    return replace(made, type=kind, minimum=low, maximum=high)


def _plain(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name[:60] or "value"
