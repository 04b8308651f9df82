"""From a request to everything about a job that follows from it: graph, needs, size, what to call its kind."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from comfy_api_service.domain.checking import Checked, FileInput
from comfy_api_service.domain.checking.file_names import FILE_INPUTS
from comfy_api_service.domain.generation import resolve
from comfy_api_service.domain.generation_request import SEED_RANDOM, GenerationRequest
from comfy_api_service.domain.graph import (
    ANY_REQUIREMENT,
    Graph,
    Requirement,
    Sizes,
    kind_of_work,
    output_nodes,
    requirement_of,
    work_of,
)
from comfy_api_service.domain.graph.form import class_of, inputs_of
from comfy_api_service.domain.inventory import Catalogue
from comfy_api_service.domain.params import graph_params, params_of
from comfy_api_service.domain.submission import Source
from comfy_api_service.domain.upload import JobInput


class Compiled(NamedTuple):
    graph: Graph | None
    """None until an inventory is known."""
    params: Mapping[str, Any]
    requirement: Requirement
    images: int
    pixel_steps: float
    timing_key: str
    """Jobs with the same key take about the same time."""
    files: tuple[FileInput, ...] = ()
    """Where files of the caller are named; without a node while there is no graph."""


def with_uploads(compiled: Compiled, uploads: Mapping[str, str]) -> tuple[Compiled, tuple[JobInput, ...]]:
    """With the id of an upload in place of each file that the caller named, and where these stand in the graph."""
    places = tuple(JobInput(one.node_id, one.input, uploads[one.value]) for one in compiled.files)
    graph = None if compiled.graph is None else _with_values(compiled.graph, places)
    return compiled._replace(graph=graph, params=_told(compiled.params, uploads)), places


def measured(compiled: Compiled, sizes: Sizes) -> Compiled:
    """With its work counted again, now that the sizes of its input pictures are known; `sizes`: by node."""
    if compiled.graph is None:
        return compiled
    work = work_of(compiled.graph, sizes)
    return compiled._replace(images=work.pictures, pixel_steps=work.pixel_steps)


def files_of(graph: Graph) -> tuple[FileInput, ...]:
    """Where a graph of this service's own making names files of callers."""
    return tuple(
        FileInput(node_id, name, FILE_INPUTS[class_of(node), name], value)
        for node_id, node in graph.items()
        for name, value in inputs_of(node).items()
        if (class_of(node), name) in FILE_INPUTS and isinstance(value, str)
    )


def _with_values(graph: Graph, places: Iterable[JobInput]) -> Graph:
    changed = dict(graph)
    for place in places:
        node = changed[place.node_id]
        changed[place.node_id] = {**node, "inputs": {**inputs_of(node), place.input: place.upload_id}}
    return changed


def _told(value: Any, uploads: Mapping[str, str]) -> Any:
    """What is shown of the request: uploads where files were named in other ways."""
    if isinstance(value, str):
        return uploads.get(value, value)
    if isinstance(value, Mapping):
        return {name: _told(one, uploads) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one, uploads) for one in value]
    return value


def compile_generation(
    request: GenerationRequest,
    catalogue: Catalogue,
    *,
    default_model: str | None,
    seed_source: Callable[[], int],
) -> Compiled:
    """Raises `Refused` (MODEL_NOT_FOUND) and `ValidationFailed` as `resolve` does."""
    if not catalogue.known or request.files:
        return _compiled(request, catalogue, default_model, seed_source)
    kinds = _kinds(catalogue, default_model)
    key = _ALIKE(request)
    kind = kinds.get(key)
    if kind is None:
        if len(kinds) == _MOST_KINDS:
            kinds.clear()
        kind = kinds[key] = _kind(request, catalogue, default_model)
    params = params_of(request)
    params["model"] = kind.model
    if request.seed is None or request.seed == SEED_RANDOM:
        params["seed"] = seed_source()
    graph = dict(kind.graph)
    for node_id, name, own in kind.places:
        node = graph[node_id]
        graph[node_id] = {**node, "inputs": {**node["inputs"], name: params[own]}}
    return Compiled(graph, params, kind.requirement, kind.images, kind.pixel_steps, kind.timing_key)


def _compiled(
    request: GenerationRequest,
    catalogue: Catalogue,
    default_model: str | None,
    seed_source: Callable[[], int],
) -> Compiled:
    resolved = resolve(request, catalogue, default_model, seed_source)
    decided = resolved.request
    key = timing_key(decided)
    if resolved.graph is None:
        guess = float(decided.width * decided.height * decided.batch_size * decided.steps)
        files = tuple(FileInput("", "", "image", one) for one in dict.fromkeys(decided.files))
        return Compiled(None, params_of(decided), ANY_REQUIREMENT, decided.batch_size, guess, key, files)
    return Compiled(
        graph=resolved.graph,
        params=params_of(decided),
        requirement=requirement_of(resolved.graph),
        images=resolved.images,
        pixel_steps=resolved.pixel_steps,
        timing_key=key,
        files=files_of(resolved.graph) if decided.files else (),
    )


class _Kind(NamedTuple):
    """What requests have in common that differ in their texts and seeds alone, which is all but these."""

    model: str | None
    graph: Graph
    places: tuple[tuple[str, str, str], ...]
    """Node, input, and which of the request's own values stands there."""
    requirement: Requirement
    images: int
    pixel_steps: float
    timing_key: str


_OWN: Final[Mapping[str, Any]] = {
    "prompt": "a prompt",
    "negative_prompt": "what is not wanted",
    "seed": 2**48 - 1,
}
"""Found again in a graph by identity."""
_ALIKE: Final = itemgetter(
    *(number for number, name in enumerate(GenerationRequest._fields) if name not in _OWN)
)
_MOST_KINDS: Final = 512


@lru_cache(maxsize=2)
def _kinds(_catalogue: Catalogue, _default_model: str | None) -> dict[tuple[Any, ...], _Kind]:
    """Those that were met, as long as the pool is what it is."""
    return {}


def _kind(request: GenerationRequest, catalogue: Catalogue, default_model: str | None) -> _Kind:
    plain = _compiled(request._replace(**_OWN), catalogue, default_model, lambda: 0)
    graph = plain.graph or {}
    places = tuple(
        (node_id, name, own)
        for node_id, node in graph.items()
        for name, value in inputs_of(node).items()
        for own, placed in _OWN.items()
        if value is placed
    )
    model = plain.params["model"]
    return _Kind(model, graph, places, plain.requirement, plain.images, plain.pixel_steps, plain.timing_key)


def compiled_graph(
    checked: Checked, source: Source | None, *, known: bool, is_open: bool = False
) -> Compiled:
    """`known`: it was checked against an inventory; else it waits among the parameters for the worker that takes the
    job and can do that, with whether it `is_open` to all that backends have.
    """
    graph = checked.graph
    params = graph_params(len(graph), output_nodes(graph, None), source)
    if not known:
        params |= {"graph": graph, "node_policy": "open" if is_open else "core"}
    return Compiled(
        graph=graph if known else None,
        params=params,
        requirement=checked.requirement if known else ANY_REQUIREMENT,
        images=checked.images,
        pixel_steps=checked.pixel_steps,
        timing_key=f"graph:{kind_of_work(graph)}",
        files=checked.files,
    )


def timing_key(request: GenerationRequest) -> str:
    upscale = "" if request.upscale is None else f"|up:{request.upscale.model}x{request.upscale.factor:g}"
    pictures = f"|from:{len(request.files)}" if request.image or request.controlnets else ""
    return (
        f"run:{request.model}|{request.width}x{request.height}x{request.batch_size}|{request.steps}"
        f"|{request.sampler}|{len(request.loras)}{upscale}{pictures}"
    )
