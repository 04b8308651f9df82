"""A generation request as a JSON document, as it is stored with the job and shown to its owner; and back."""

from collections.abc import Mapping
from typing import Any

from comfy_api_service.domain.generation_request import GenerationRequest, Lora, Upscale
from comfy_api_service.domain.sampling import Sampler, Scheduler


def params_of(request: GenerationRequest) -> dict[str, Any]:
    """What was asked, with what the service decided (seed, model) filled in; names as in the API."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "cfg_scale": request.cfg_scale,
        "sampler": request.sampler,
        "scheduler": request.scheduler,
        "seed": request.seed,
        "model": request.model,
        "batch_size": request.batch_size,
        "clip_skip": request.clip_skip,
        "loras": [{"name": lora.name, "weight": lora.weight} for lora in request.loras],
        "upscale": None
        if request.upscale is None
        else {"model": request.upscale.model, "factor": request.upscale.factor},
    }


def generation_from(params: Mapping[str, Any]) -> GenerationRequest:
    upscale = params["upscale"]
    return GenerationRequest(
        prompt=params["prompt"],
        negative_prompt=params["negative_prompt"],
        width=params["width"],
        height=params["height"],
        steps=params["steps"],
        cfg_scale=params["cfg_scale"],
        sampler=Sampler(params["sampler"]),
        scheduler=None if params["scheduler"] is None else Scheduler(params["scheduler"]),
        seed=params["seed"],
        model=params["model"],
        batch_size=params["batch_size"],
        clip_skip=params["clip_skip"],
        loras=tuple(Lora(lora["name"], lora["weight"]) for lora in params["loras"]),
        upscale=None if upscale is None else Upscale(upscale["model"], upscale["factor"]),
    )
