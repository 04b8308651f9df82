"""From a request to everything about a job that follows from it: graph, needs, size, what to call its kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api_service.domain.generation import resolve
from comfy_api_service.domain.generation_request import GenerationRequest
from comfy_api_service.domain.graph import (
    ANY_REQUIREMENT,
    Graph,
    Requirement,
    requirement_of,
)
from comfy_api_service.domain.inventory import Catalogue
from comfy_api_service.domain.params import params_of


@dataclass(frozen=True, slots=True)
class Compiled:
    graph: Graph | None
    """None until an inventory is known."""
    params: Mapping[str, Any]
    requirement: Requirement
    images: int
    pixel_steps: float
    timing_key: str
    """Jobs with the same key take about the same time."""


def compile_generation(
    request: GenerationRequest,
    catalogue: Catalogue,
    *,
    default_model: str | None,
    seed_source: Callable[[], int],
) -> Compiled:
    """Raises `Refused` (MODEL_NOT_FOUND) and `ValidationFailed` as `resolve` does."""
    resolved = resolve(request, catalogue, default_model, seed_source)
    decided = resolved.request
    key = timing_key(decided)
    if resolved.graph is None:
        guess = float(decided.width * decided.height * decided.batch_size * decided.steps)
        return Compiled(None, params_of(decided), ANY_REQUIREMENT, decided.batch_size, guess, key)
    return Compiled(
        graph=resolved.graph,
        params=params_of(decided),
        requirement=requirement_of(resolved.graph),
        images=resolved.images,
        pixel_steps=resolved.pixel_steps,
        timing_key=key,
    )


def timing_key(request: GenerationRequest) -> str:
    upscale = "" if request.upscale is None else f"|up:{request.upscale.model}x{request.upscale.factor:g}"
    return (
        f"run:{request.model}|{request.width}x{request.height}x{request.batch_size}|{request.steps}"
        f"|{request.sampler}|{len(request.loras)}{upscale}"
    )
