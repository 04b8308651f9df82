"""Pools of models for tests about generation, and a request for each form of each family."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfy_api_service.domain.generation import Resolved, resolve
from comfy_api_service.domain.generation_request import GenerationRequest
from comfy_api_service.domain.inventory import Catalogue, Inventory

MODELS: Final[Mapping[str, Sequence[str]]] = {
    "checkpoints": (
        "flux1-schnell-fp8.safetensors",
        "juggernautXL_v9.safetensors",
        "sd3.5_large.safetensors",
        "sd3_medium_incl_clips_t5xxlfp8.safetensors",
        "v1-5-pruned-emaonly.safetensors",
    ),
    "diffusion_models": (
        "flux1-dev.safetensors",
        "sd3.5_medium.safetensors",
        "wan2.1_t2v.safetensors",
        "flux2-dev.safetensors",
    ),
    "text_encoders": (
        "clip_g.safetensors",
        "clip_l.safetensors",
        "t5xxl_fp16.safetensors",
        "umt5_xxl_fp8.safetensors",
    ),
    "vae": ("ae.safetensors", "flux2-vae.safetensors", "pixel_space", "sd3_vae.safetensors"),
    "loras": ("add_detail.safetensors", "film.safetensors", "lcm.safetensors"),
    "upscale_models": ("4x-UltraSharp.pth", "RealESRGAN_x4plus.pth"),
    "controlnet": ("canny.safetensors", "depth.safetensors"),
}

FORMS: Final[Mapping[str, str]] = {
    "sd15": "v1-5-pruned-emaonly.safetensors",
    "sdxl": "juggernautXL_v9.safetensors",
    "sd3 checkpoint with encoders": "sd3_medium_incl_clips_t5xxlfp8.safetensors",
    "sd3 checkpoint without encoders": "sd3.5_large.safetensors",
    "sd3 in parts": "sd3.5_medium.safetensors",
    "flux checkpoint": "flux1-schnell-fp8.safetensors",
    "flux in parts": "flux1-dev.safetensors",
}
"""Every form of graph that there is → a model that gets it."""


def inventory(models: Mapping[str, Sequence[str]]) -> Inventory:
    return Inventory({}, {kind: tuple(sorted(names)) for kind, names in models.items()})


def pool(models: Mapping[str, Sequence[str]] = MODELS) -> Catalogue:
    """One backend with these models."""
    return Catalogue.of({"one": inventory(models)})


def never() -> int:
    raise AssertionError("a seed was drawn")


def resolved(model: str, catalogue: Catalogue | None = None, **options: Any) -> Resolved:
    asked: dict[str, Any] = {"prompt": "a quiet harbour", "seed": 7, "model": model} | options
    request = GenerationRequest(**asked)
    return resolve(request, pool() if catalogue is None else catalogue, None, never)
