"""SD 3 and 3.5: a checkpoint with or without its text encoders, or a diffusion model with parts.

`clip_skip` has no effect: the model was trained on fixed layers of three encoders. The scheduler is
`sgm_uniform` unless the request or the sampler's name says another.
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
    patch_loras,
)
from comfy_api_service.domain.recipes.plan import Plan
from comfy_api_service.domain.sampling import Scheduler, choose

SHIFT: Final = 3.0
"""The shift of noise levels that SD 3 was made for (ModelSamplingSD3's default)."""


def build(plan: Plan) -> Graph:
    request = plan.request
    build = Builder()
    model, clip, vae = load_model(build, plan)
    if clip is None:
        names = {f"clip_name{n}": name for n, name in enumerate(plan.parts.clips, 1)}
        clip = [build.add("TripleCLIPLoader", **names), 0]
    if vae is None:
        vae = load_vae(build, plan)
    model, clip = patch_loras(build, plan, model, clip)
    shifted = build.add("ModelSamplingSD3", model=model, shift=SHIFT)
    positive = build.add("CLIPTextEncode", text=request.prompt, clip=clip)
    negative = build.add("CLIPTextEncode", text=request.negative_prompt, clip=clip)
    shaped, opposed = controlled(build, plan, [positive, 0], [negative, 0], vae)
    begun = coarse_latent(build, plan, vae)
    sampler_name, scheduler = choose(request.sampler, request.scheduler, Scheduler.SGM_UNIFORM)
    samples = build.add(
        "KSampler",
        model=[shifted, 0],
        positive=shaped,
        negative=opposed,
        latent_image=begun,
        seed=plan.seed,
        steps=request.steps,
        cfg=float(request.cfg_scale),
        sampler_name=sampler_name,
        scheduler=scheduler,
        denoise=denoise(plan),
    )
    image = build.add("VAEDecode", samples=[samples, 0], vae=vae)
    return finish(build, plan, crop_coarse(build, plan, [image, 0]))
