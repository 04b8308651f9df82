"""Flux.1: a checkpoint, or a diffusion model with CLIP-L, T5 and its VAE.

The model is distilled to be sampled with cfg 1 and takes its guidance as a number in the conditioning, so
`negative_prompt` has no effect, nor has `clip_skip`. `cfg_scale` becomes a guidance of half its value: the
default of 7 gives 3.5, what the model was made for, and 1…30 the range 0.5…15. (Schnell takes no guidance and
ignores it.) LoRAs patch the model alone. The scheduler is `simple` unless the request or the sampler's name
says another.
"""

from typing import Final

from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.recipes.builder import (
    Builder,
    coarse_latent,
    controlled,
    crop_coarse,
    denoise,
    finish,
    load_model,
    load_vae,
)
from comfy_api_service.domain.recipes.plan import Plan
from comfy_api_service.domain.sampling import Scheduler, choose

GUIDANCE_PER_CFG: Final = 0.5


def build(plan: Plan) -> Graph:
    request = plan.request
    build = Builder()
    model, clip, vae = load_model(build, plan)
    if clip is None:
        clip_l, t5 = plan.parts.clips
        clip = [build.add("DualCLIPLoader", clip_name1=t5, clip_name2=clip_l, type="flux"), 0]
    if vae is None:
        vae = load_vae(build, plan)
    for lora in request.loras:
        patched = build.add(
            "LoraLoaderModelOnly", model=model, lora_name=lora.name, strength_model=float(lora.weight)
        )
        model = [patched, 0]
    positive = build.add("CLIPTextEncode", text=request.prompt, clip=clip)
    guided = build.add(
        "FluxGuidance", conditioning=[positive, 0], guidance=float(request.cfg_scale) * GUIDANCE_PER_CFG
    )
    negative = build.add("ConditioningZeroOut", conditioning=[positive, 0])
    shaped, opposed = controlled(build, plan, [guided, 0], [negative, 0], vae)
    begun = coarse_latent(build, plan, vae)
    sampler_name, scheduler = choose(request.sampler, request.scheduler, Scheduler.SIMPLE)
    samples = build.add(
        "KSampler",
        model=model,
        positive=shaped,
        negative=opposed,
        latent_image=begun,
        seed=plan.seed,
        steps=request.steps,
        cfg=1.0,
        sampler_name=sampler_name,
        scheduler=scheduler,
        denoise=denoise(plan),
    )
    image = build.add("VAEDecode", samples=[samples, 0], vae=vae)
    return finish(build, plan, crop_coarse(build, plan, [image, 0]))
