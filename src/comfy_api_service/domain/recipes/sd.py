"""SD 1.5, SD 2 and SDXL: everything in one checkpoint.

`clip_skip` n stops the text encoders at the n-th layer from the end, literally: 1 is the last layer. SD 1.5
without it uses the last one, SDXL the last but one.
"""

from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.recipes.builder import (
    Builder,
    controlled,
    denoise,
    finish,
    latent,
    patch_loras,
)
from comfy_api_service.domain.recipes.plan import Plan
from comfy_api_service.domain.sampling import Scheduler, choose


def build(plan: Plan) -> Graph:
    request = plan.request
    build = Builder()
    loader = build.add("CheckpointLoaderSimple", ckpt_name=plan.model)
    model, clip = patch_loras(build, plan, [loader, 0], [loader, 1])
    if request.clip_skip is not None:
        clip = [build.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-request.clip_skip), 0]
    positive = build.add("CLIPTextEncode", text=request.prompt, clip=clip)
    negative = build.add("CLIPTextEncode", text=request.negative_prompt, clip=clip)
    shaped, opposed = controlled(build, plan, [positive, 0], [negative, 0])
    begun = latent(build, plan, [loader, 2])
    sampler_name, scheduler = choose(request.sampler, request.scheduler, Scheduler.NORMAL)
    samples = build.add(
        "KSampler",
        model=model,
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
    image = build.add("VAEDecode", samples=[samples, 0], vae=[loader, 2])
    return finish(build, plan, [image, 0])
