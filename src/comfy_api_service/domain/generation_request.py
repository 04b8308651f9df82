"""A simple generation as it is asked for: values and their bounds, nothing decided yet.

The API's schema takes its bounds from here, so a request that arrives is within them.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from comfy_api_service.domain.sampling import Sampler, Scheduler

PROMPT_MIN: Final = 1
PROMPT_MAX: Final = 5000
"""Characters, of the negative prompt too (which may be empty)."""
SIZE_MIN: Final = 64
SIZE_MAX: Final = 2048
SIZE_STEP: Final = 8
"""Width and height in pixels, before any upscaling."""
SIZE_DEFAULT: Final = 512
STEPS_MIN: Final = 1
STEPS_MAX: Final = 150
STEPS_DEFAULT: Final = 20
CFG_MIN: Final = 1.0
CFG_MAX: Final = 30.0
CFG_DEFAULT: Final = 7.0
SEED_RANDOM: Final = -1
SEED_MAX: Final = 2**64 - 1
"""0…SEED_MAX; SEED_RANDOM or none: random."""
BATCH_MIN: Final = 1
BATCH_MAX: Final = 4
CLIP_SKIP_MIN: Final = 1
CLIP_SKIP_MAX: Final = 12
"""The text encoder of SD 1.5 has 12 layers."""
LORAS_MAX: Final = 8
LORA_WEIGHT_MIN: Final = -10.0
LORA_WEIGHT_MAX: Final = 10.0
LORA_WEIGHT_DEFAULT: Final = 1.0
MODEL_NAME_MAX: Final = 255
UPSCALE_FACTOR_MIN: Final = 1.0
UPSCALE_FACTOR_MAX: Final = 4.0
"""2048 · 4 = 8192 pixels a side, 64 · 2²⁰ in all."""
UPSCALE_FACTOR_DEFAULT: Final = 2.0
STRENGTH_MIN: Final = 0.01
STRENGTH_MAX: Final = 1.0
"""How much of the picture that is begun from is made anew."""
STRENGTH_DEFAULT: Final = 0.75
CONTROLNETS_MAX: Final = 4
CONTROL_STRENGTH_MAX: Final = 10.0
CONTROL_STRENGTH_DEFAULT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA by its name in the inventory; `weight` is applied to the model, and to its text encoders."""

    name: str
    weight: float = LORA_WEIGHT_DEFAULT


@dataclass(frozen=True, slots=True)
class Upscale:
    """Enlarge by `factor` on each side, with an upscale model, or without one by Lanczos."""

    model: str | None = None
    factor: float = UPSCALE_FACTOR_DEFAULT


@dataclass(frozen=True, slots=True)
class ControlNet:
    """A hint that the picture follows from `start` to `end` of its steps (0…1); `image` is a file of the caller."""

    model: str
    image: str
    strength: float = CONTROL_STRENGTH_DEFAULT
    start: float = 0.0
    end: float = 1.0


class GenerationRequest(NamedTuple):
    """Text to image, or image to image. `width` and `height` are in pixels; `seed` None or -1 is random.

    `image`, `mask` and those of ControlNets are files of the caller: an upload's id, or whatever one is made of.

    A tuple, since each submission makes several.
    """

    prompt: str
    negative_prompt: str = ""
    width: int = SIZE_DEFAULT
    height: int = SIZE_DEFAULT
    steps: int = STEPS_DEFAULT
    cfg_scale: float = CFG_DEFAULT
    sampler: Sampler = Sampler.EULER_A
    scheduler: Scheduler | None = None
    seed: int | None = None
    model: str | None = None
    batch_size: int = BATCH_MIN
    clip_skip: int | None = None
    loras: tuple[Lora, ...] = ()
    upscale: Upscale | None = None
    image: str | None = None
    strength: float = STRENGTH_DEFAULT
    mask: str | None = None
    controlnets: tuple[ControlNet, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Of the caller, as they are named."""
        given = (self.image, self.mask, *(one.image for one in self.controlnets))
        return tuple(one for one in given if one is not None)
