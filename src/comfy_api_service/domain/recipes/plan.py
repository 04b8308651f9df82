"""What a recipe is given: the request, and all that was decided about it."""

from dataclasses import dataclass

from comfy_api_service.domain.families import Family
from comfy_api_service.domain.generation_request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Parts:
    """Files that a model needs beside its own, by their names in the inventory.

    `clips` are text encoders (Flux: CLIP-L and T5; SD 3: CLIP-L, CLIP-G and T5, in this order); empty: those
    inside the checkpoint. `vae` None: the one inside the checkpoint.
    """

    clips: tuple[str, ...] = ()
    vae: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a graph depends on."""

    request: GenerationRequest
    seed: int
    model: str
    family: Family
    bundled: bool
    """True if the model is a checkpoint, False if it stands in diffusion_models and needs parts."""
    parts: Parts = Parts()
