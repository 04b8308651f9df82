"""What a graph needs of a backend: node classes and model files."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from comfy_api_service.domain.graph.form import Graph, canonical, class_of, inputs_of
from comfy_api_service.domain.graph.loaders import ModelRef, models_of

_BIG_KINDS: Final = ("checkpoints", "diffusion_models", "unet_gguf", "diffusers")
_BIG_INPUTS: Final = (".ckpt_name", ".unet_name")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A need that jobs share; made by `requirement_of` alone, so that equal needs have equal ids."""

    id: str
    """The first 32 hex digits of the SHA-256 of the canonical content."""
    nodes: tuple[str, ...]
    """Node classes, sorted, each once."""
    models: tuple[ModelRef, ...]
    """Model files, sorted, each once."""
    primary: str | None
    """`kind/name` of the big model, whose presence in memory decides about affinity."""


def requirement_of(graph: Graph) -> Requirement:
    """The need of the graph: every class, and every model that a loader's plain input names."""
    classes = set()
    models: set[tuple[str, str]] = set()
    for node in graph.values():
        name = class_of(node)
        if not name:
            continue
        classes.add(name)
        if found := models_of(name, inputs_of(node)):
            models.update(found)
    return _requirement(tuple(sorted(classes)), tuple(sorted(models)))


@lru_cache(maxsize=1024)
def _requirement(nodes: tuple[str, ...], models: tuple[tuple[str, str], ...]) -> Requirement:
    content = canonical({"nodes": nodes, "models": models})
    return Requirement(
        id=hashlib.sha256(content).hexdigest()[:32],
        nodes=nodes,
        models=tuple(ModelRef(kind, name) for kind, name in models),
        primary=_primary(models),
    )


def _primary(models: tuple[tuple[str, str], ...]) -> str | None:
    """Of several big models the first of the first kind: any choice will do that is always the same."""
    for big in _BIG_KINDS:
        for kind, name in models:
            if kind == big:
                return f"{kind}/{name}"
    for kind, name in models:
        if kind.endswith(_BIG_INPUTS):
            return f"{kind}/{name}"
    return None


ANY_REQUIREMENT: Final = _requirement((), ())
"""The empty need, which every backend meets: for jobs whose graph waits for the first inventory."""
