"""From a simple generation's request to its graph: seed drawn, model chosen, parts found.

`resolve` is on the way of each submission: it does no I/O and costs some tens of microseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from comfy_api_service.domain.errors import Code, FieldError, Refused, ValidationFailed
from comfy_api_service.domain.families import Family, is_flux_2, named_family
from comfy_api_service.domain.generation_request import SEED_RANDOM, GenerationRequest, Lora, Upscale
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.graph.loaders import is_model_name
from comfy_api_service.domain.inventory import Catalogue
from comfy_api_service.domain.model_parts import MissingPart, find_parts
from comfy_api_service.domain.recipes import Parts, Plan, compile_graph

__all__ = ["GenerationRequest", "Lora", "Resolved", "Upscale", "model_not_found", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request with nothing left to chance, and its graph."""

    request: GenerationRequest
    """As asked, with the seed and (if it could be chosen) the model filled in: resolving it again changes
    neither."""
    seed: int
    plan: Plan | None
    graph: Graph | None
    """None if it cannot be compiled before an inventory is known; then resolve `request` again with one."""

    @property
    def model(self) -> str | None:
        return self.request.model

    @property
    def images(self) -> int:
        """How many pictures the graph gives: `pictures_in` of it, without counting."""
        return self.request.batch_size

    @property
    def pixel_steps(self) -> float:
        """The work: `pixel_steps` of the graph but for rounding to the latent's steps, without counting."""
        asked = self.request
        return float(asked.width * asked.height * asked.batch_size * asked.steps)

    @property
    def family(self) -> Family | None:
        return None if self.plan is None else self.plan.family


def resolve(
    request: GenerationRequest,
    catalogue: Catalogue,
    default_model: str | None,
    seed_source: Callable[[], int],
) -> Resolved:
    """Decides what the request leaves open, and compiles it.

    The model is the request's, else `default_model`, else the pool's first checkpoint by name, one whose name
    tells its family before one that tells none. `seed_source` gives 0…2⁶⁴-1 and is asked only when needed.

    While the catalogue is not known, nothing is checked against it. An SD 1.5, SD 2 or SDXL model named with
    its file's suffix is then compiled as a checkpoint; SD 3 and Flux, which may stand in two folders and need
    parts, and a model yet to be chosen wait: `graph` is None.

    Raises Refused (MODEL_NOT_FOUND; details model, kind, nearest) for a model, LoRA, upscale model or part
    that no backend has, ValidationFailed for a model that no recipe fits. That all have what they need does
    not mean that one backend has all: the graph's requirement tells that.
    """
    seed = seed_source() if request.seed is None or request.seed == SEED_RANDOM else request.seed
    wanted = request.model or default_model
    if catalogue.known:
        model = wanted or _first_checkpoint(catalogue)
        bundled, family, parts = _place(model, catalogue)
        _check_extras(request, catalogue)
    else:
        named = None if wanted is None else _by_name_alone(wanted)
        if wanted is None or named is None:
            return Resolved(request._replace(seed=seed, model=wanted), seed, None, None)
        model, bundled, family, parts = wanted, True, named, Parts()
    decided = request._replace(seed=seed, model=model)
    plan = Plan(decided, seed, model, family, bundled, parts)
    return Resolved(decided, seed, plan, compile_graph(plan))


def model_not_found(kind: str, name: str, catalogue: Catalogue) -> Refused:
    """The refusal of a model that no backend has, with the nearest names of its kind."""
    close = catalogue.nearest(kind, name)
    hint = f" Similar: {', '.join(close)}." if close else ""
    return Refused(
        Code.MODEL_NOT_FOUND,
        f"No backend has {name!r} among its {kind}.{hint}",
        details={"model": name, "kind": kind, "nearest": list(close)},
    )


@lru_cache(maxsize=2)
def _first_checkpoint(catalogue: Catalogue) -> str:
    names = catalogue.models.get("checkpoints", {})
    usable = [name for name in names if not is_flux_2(name)]
    if not usable:
        raise Refused(
            Code.MODEL_NOT_FOUND,
            "No model was named, and no backend has a checkpoint to fall back on.",
            details={"model": None, "kind": "checkpoints", "nearest": []},
        )
    return min(usable, key=lambda name: (named_family(name) is None, name))


def _place(model: str, catalogue: Catalogue) -> tuple[bool, Family, Parts]:
    """(whether it is a checkpoint, its family, its parts); raises when there is none, or no recipe for it."""
    bundled = bool(catalogue.having("checkpoints", model))
    backends = catalogue.having("checkpoints" if bundled else "diffusion_models", model)
    if not backends:
        raise model_not_found(_likely_kind(model, catalogue), model, catalogue)
    family = named_family(model) or (Family.SD15 if bundled else None)
    if is_flux_2(model) or family is None or (not bundled and family not in (Family.SD3, Family.FLUX)):
        raise ValidationFailed([FieldError("model", "no recipe of this version fits this model", model)])
    if family not in (Family.SD3, Family.FLUX):
        return bundled, family, Parts()
    try:
        return bundled, family, find_parts(family, model, bundled=bundled, catalogue=catalogue)
    except MissingPart as missing:
        raise Refused(
            Code.MODEL_NOT_FOUND,
            f"The model needs {missing.what}, and no backend has one among its {missing.kind}.",
            details={
                "model": missing.example,
                "kind": missing.kind,
                "nearest": list(catalogue.nearest(missing.kind, missing.example)),
            },
        ) from None


def _likely_kind(model: str, catalogue: Catalogue) -> str:
    """Where an absent model is sought: where the names are nearer; Flux and SD 3 stand in either."""
    if catalogue.nearest("checkpoints", model) or not catalogue.nearest("diffusion_models", model):
        return "checkpoints"
    return "diffusion_models"


def _check_extras(request: GenerationRequest, catalogue: Catalogue) -> None:
    for lora in request.loras:
        if not catalogue.having("loras", lora.name):
            raise model_not_found("loras", lora.name, catalogue)
    for control in request.controlnets:
        if not catalogue.having("controlnet", control.model):
            raise model_not_found("controlnet", control.model, catalogue)
    upscale = request.upscale
    if upscale is not None and upscale.model and not catalogue.having("upscale_models", upscale.model):
        raise model_not_found("upscale_models", upscale.model, catalogue)


def _by_name_alone(model: str) -> Family | None:
    """The family of a checkpoint that can be compiled without an inventory, or None."""
    family = named_family(model) or Family.SD15
    return family if family in (Family.SD15, Family.SDXL) and is_model_name(model) else None
