"""The samplers: they take their time step by step, and turn a latent into a recipe for a picture."""

import dataclasses
import time
from collections.abc import Callable

from comfy_api_service.simulator.drawing import Previewer
from comfy_api_service.simulator.values import (
    Conditioning,
    Guider,
    Latent,
    Model,
    Named,
    Noise,
    Picture,
    Recipe,
    Sigmas,
)

from .base import Call, Outputs, node
from .latents import decoded


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What one sampler was asked for."""

    model: Model
    positive: Conditioning
    negative: Conditioning
    latent: Latent
    seed: int
    steps: int
    cfg: float
    sampler: str
    denoise: float


@node("KSampler")
async def ksampler(call: Call) -> Outputs:
    job = Job(
        model=call.model(),
        positive=call.conditioning("positive"),
        negative=call.conditioning("negative"),
        latent=call.latent("latent_image"),
        seed=call.integer("seed"),
        steps=call.integer("steps", 20),
        cfg=call.number("cfg", 8.0),
        sampler=f"{call.text('sampler_name')} {call.text('scheduler')}",
        denoise=call.number("denoise", 1.0),
    )
    return (await _sample(call, job),)


@node("KSamplerAdvanced")
async def ksampler_advanced(call: Call) -> Outputs:
    steps = call.integer("steps", 20)
    start, end = call.integer("start_at_step"), min(call.integer("end_at_step", steps), steps)
    job = Job(
        model=call.model(),
        positive=call.conditioning("positive"),
        negative=call.conditioning("negative"),
        latent=call.latent("latent_image"),
        seed=call.integer("noise_seed"),
        steps=max(0, end - start),
        cfg=call.number("cfg", 8.0),
        sampler=f"{call.text('sampler_name')} {call.text('scheduler')}",
        denoise=(end - start) / steps if steps else 0.0,
    )
    return (await _sample(call, job),)


@node("SamplerCustom")
async def sampler_custom(call: Call) -> Outputs:
    sigmas = call.get("sigmas", Sigmas)
    job = Job(
        model=call.model(),
        positive=call.conditioning("positive"),
        negative=call.conditioning("negative"),
        latent=call.latent("latent_image"),
        seed=call.integer("noise_seed"),
        steps=sigmas.steps,
        cfg=call.number("cfg", 8.0),
        sampler=f"{call.get('sampler', Named).name} {sigmas.scheduler}",
        denoise=sigmas.denoise,
    )
    latent = await _sample(call, job)
    return latent, latent


@node("SamplerCustomAdvanced")
async def sampler_custom_advanced(call: Call) -> Outputs:
    sigmas, guider = call.get("sigmas", Sigmas), call.get("guider", Guider)
    job = Job(
        model=guider.model,
        positive=guider.positive,
        negative=guider.negative,
        latent=call.latent("latent_image"),
        seed=call.get("noise", Noise).seed,
        steps=sigmas.steps,
        cfg=guider.cfg,
        sampler=f"{call.get('sampler', Named).name} {sigmas.scheduler}",
        denoise=sigmas.denoise,
    )
    latent = await _sample(call, job)
    return latent, latent


@node("BasicScheduler")
def basic_scheduler(call: Call) -> Outputs:
    denoise = call.number("denoise", 1.0)
    steps = call.integer("steps", 20) if denoise > 0 else 0
    return (Sigmas(steps, call.text("scheduler"), denoise),)


@node("RandomNoise")
def random_noise(call: Call) -> Outputs:
    return (Noise(call.integer("noise_seed")),)


@node("KSamplerSelect")
def sampler_select(call: Call) -> Outputs:
    return (Named("sampler", call.text("sampler_name")),)


@node("BasicGuider")
def basic_guider(call: Call) -> Outputs:
    return (Guider(call.model(), call.conditioning(), Conditioning(""), 1.0),)


@node("CFGGuider")
def cfg_guider(call: Call) -> Outputs:
    positive, negative = call.conditioning("positive"), call.conditioning("negative")
    return (Guider(call.model(), positive, negative, call.number("cfg", 8.0)),)


async def _sample(call: Call, job: Job) -> Latent:
    latent = job.latent
    call.allocate(latent.width, latent.height, len(latent.frames))
    await call.around.shelf.need(job.model.name)
    settings = call.around.settings
    if job.steps < 1:
        return latent
    plain = settings.fixed_output is not None
    recipes = await call.thread(lambda: _recipes(job)) if _needs_drawing(latent) else _recipes(job)
    preview = await _previews(call, job, recipes[0]) if call.around.previews else None
    budget = call.around.seconds_left()
    # Of a fixed time a prompt a tenth is left for what comes after.
    each = settings.seconds_per_step if budget is None else max(0.0, budget) * 0.9 / job.steps
    begun = time.monotonic()
    for step in range(1, job.steps + 1):
        due = begun + each * step
        await call.around.step(step, job.steps, preview, seconds=max(0.0, due - time.monotonic()))
    return dataclasses.replace(latent, frames=(None,) * len(recipes) if plain else recipes)


def _needs_drawing(latent: Latent) -> bool:
    return any(isinstance(f, Recipe) for f in latent.frames)


def _recipes(job: Job) -> tuple[Recipe, ...]:
    latent, size = job.latent, (job.latent.width, job.latent.height)

    def base(frame: Picture | Recipe | None) -> Picture | None:
        return None if frame is None or (job.denoise >= 1.0 and latent.mask is None) else decoded(frame, size)

    return tuple(
        Recipe(
            prompt=job.positive.text,
            negative=job.negative.text,
            model=job.model.name,
            seed=job.seed,
            index=index,
            width=latent.width,
            height=latent.height,
            steps=job.steps,
            cfg=job.cfg,
            sampler=job.sampler,
            denoise=job.denoise,
            loras=job.model.loras,
            notes=job.positive.notes,
            base=base(frame),
            mask=latent.mask,
            guide=job.positive.guide,
        )
        for index, frame in enumerate(latent.frames)
    )


async def _previews(call: Call, job: Job, recipe: Recipe) -> Callable[[], bytes]:
    size = call.around.settings.preview_size
    previewer = await call.thread(lambda: Previewer(recipe, size, job.steps))
    return previewer.next
