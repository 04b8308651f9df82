"""What was asked as a JSON document, as it is stored with the job and shown to its owner; and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from comfy_api_service.domain.generation_request import (
    STRENGTH_DEFAULT,
    ControlNet,
    GenerationRequest,
    Lora,
    Upscale,
)
from comfy_api_service.domain.sampling import Sampler, Scheduler
from comfy_api_service.domain.submission import Source


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
        **_of_pictures(request),
    }


def _of_pictures(request: GenerationRequest) -> dict[str, Any]:
    """What a request has that begins from pictures."""
    found: dict[str, Any] = {}
    if request.image is not None:
        found |= {"image": request.image, "strength": request.strength, "mask": request.mask}
    if request.controlnets:
        found["controlnets"] = [asdict(one) for one in request.controlnets]
    return found


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
        image=params.get("image"),
        strength=params.get("strength", STRENGTH_DEFAULT),
        mask=params.get("mask"),
        controlnets=tuple(ControlNet(**one) for one in params.get("controlnets", ())),
    )


def graph_params(nodes: int, outputs: Sequence[str], source: Source | None) -> dict[str, Any]:
    """Of a graph, which is stored beside: how large it is, or the template and what it was filled with."""
    if source is None:
        return {"workflow": {"nodes": nodes, "outputs": list(outputs)}}
    return {"workflow_id": source.workflow_id, "version": source.version, "inputs": dict(source.inputs)}


def is_of_graph(params: Mapping[str, Any]) -> bool:
    return "workflow" in params or "workflow_id" in params


def source_from(params: Mapping[str, Any]) -> Source | None:
    """The template that the graph was filled from, if it was."""
    if "workflow_id" not in params:
        return None
    return Source(params["workflow_id"], params["version"], params["inputs"])
