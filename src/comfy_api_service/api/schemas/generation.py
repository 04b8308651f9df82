"""The fields of a simple generation; bounds come from the domain."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from comfy_api_service.api.schemas.base import Request, integral
from comfy_api_service.domain import generation_request as bounds
from comfy_api_service.domain.generation_request import ControlNet, GenerationRequest, Lora, Upscale
from comfy_api_service.domain.sampling import Sampler, Scheduler

_NO_NUL: Final = r"^[^\x00]*$"
_VISIBLE: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"

ModelName = Annotated[str, Field(min_length=1, max_length=bounds.MODEL_NAME_MAX, pattern=_PRINTABLE)]
FileName = Annotated[str, Field(min_length=1, max_length=16 * 2**20, pattern=r"^[\x21-\x7e]+$")]
Pixels = Annotated[
    int,
    Field(ge=bounds.SIZE_MIN, le=bounds.SIZE_MAX, multiple_of=bounds.SIZE_STEP),
    BeforeValidator(integral),
]
Steps = Annotated[int, Field(ge=bounds.STEPS_MIN, le=bounds.STEPS_MAX), BeforeValidator(integral)]
Layers = Annotated[int, Field(ge=bounds.CLIP_SKIP_MIN, le=bounds.CLIP_SKIP_MAX), BeforeValidator(integral)]
Images = Annotated[int, Field(ge=bounds.BATCH_MIN, le=bounds.BATCH_MAX), BeforeValidator(integral)]


def _drawn(seed: int | None) -> int | None:
    return None if seed == bounds.SEED_RANDOM else seed


Seed = Annotated[
    int | None,
    Field(ge=bounds.SEED_RANDOM, le=bounds.SEED_MAX),
    BeforeValidator(integral),
    AfterValidator(_drawn),
]


class LoraRequest(Request):
    """A LoRA by its name in `GET /models`."""

    name: ModelName
    weight: float = Field(bounds.LORA_WEIGHT_DEFAULT, ge=bounds.LORA_WEIGHT_MIN, le=bounds.LORA_WEIGHT_MAX)


class UpscaleRequest(Request):
    """Enlarge the finished picture, with an upscale model or, without one, by Lanczos."""

    model: ModelName | None = None
    factor: float = Field(
        bounds.UPSCALE_FACTOR_DEFAULT, ge=bounds.UPSCALE_FACTOR_MIN, le=bounds.UPSCALE_FACTOR_MAX
    )


class ControlNetRequest(Request):
    """A hint that the picture follows."""

    model: ModelName
    image: FileName
    strength: float = Field(bounds.CONTROL_STRENGTH_DEFAULT, ge=0, le=bounds.CONTROL_STRENGTH_MAX)
    start: float = Field(0.0, ge=0, le=1, description="Part of the steps from which on it is followed.")
    end: float = Field(1.0, ge=0, le=1, description="Until which.")


class GenerationFields(Request):
    """Text to image, or with `image` image to image."""

    prompt: str = Field(
        min_length=bounds.PROMPT_MIN,
        max_length=bounds.PROMPT_MAX,
        pattern=_VISIBLE,
        description="What the picture should show.",
    )
    negative_prompt: str = Field(
        "", max_length=bounds.PROMPT_MAX, pattern=_NO_NUL, description="What it should not show."
    )
    width: Pixels = Field(bounds.SIZE_DEFAULT, description="Pixels.")
    height: Pixels = Field(bounds.SIZE_DEFAULT, description="Pixels.")
    steps: Steps = bounds.STEPS_DEFAULT
    cfg_scale: float = Field(bounds.CFG_DEFAULT, ge=bounds.CFG_MIN, le=bounds.CFG_MAX)
    sampler: Sampler = Field(
        Sampler.EULER_A,
        description="ComfyUI's names and the usual ones of other tools; case, blanks and hyphens do not matter.",
    )
    scheduler: Scheduler | None = Field(
        None, description="Default: the one that the sampler's name says, else the model family's."
    )
    seed: Seed = Field(
        None,
        description="0 to 2⁶⁴-1, as a JSON integer; none or -1: random, and reported. Beyond 2⁵³-1 some JSON "
        "parsers, JavaScript's among them, lose digits.",
    )
    model: ModelName | None = Field(None, description="Default: the configured one, else the first there is.")
    batch_size: Images | None = Field(None, description="Number of pictures; default 1.")
    num_images: Images | None = Field(
        None, description="Another name of `batch_size`; if both are given, they must not differ."
    )
    clip_skip: Layers | None = None
    loras: tuple[LoraRequest, ...] = Field((), max_length=bounds.LORAS_MAX)
    upscale: UpscaleRequest | None = None
    image: FileName | None = Field(
        None,
        description="The picture to begin from, scaled to fill `width` and `height`: an upload's id, a job's id (or "
        "`job_…/2` for its third file), a data URL or an https URL.",
    )
    strength: float = Field(
        bounds.STRENGTH_DEFAULT,
        ge=bounds.STRENGTH_MIN,
        le=bounds.STRENGTH_MAX,
        description="How much of `image` is made anew.",
    )
    mask: FileName | None = Field(
        None, description="White where `image` is to be made anew, black where it stays; named as `image` is."
    )
    controlnets: tuple[ControlNetRequest, ...] = Field((), max_length=bounds.CONTROLNETS_MAX)

    @model_validator(mode="after")
    def _of_an_image(self) -> Self:
        if self.image is None and (self.mask is not None or "strength" in self.model_fields_set):
            raise PydanticCustomError("no_image", "strength and mask need an image")
        return self

    @model_validator(mode="after")
    def _same_number(self) -> Self:
        if self.num_images is not None and self.batch_size not in (None, self.num_images):
            raise PydanticCustomError(
                "two_numbers", "batch_size and num_images are two names of one field and must not differ"
            )
        return self

    @property
    def images(self) -> int:
        return self.num_images or self.batch_size or bounds.BATCH_MIN

    def generation(self) -> GenerationRequest:
        upscale = self.upscale
        return GenerationRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width=self.width,
            height=self.height,
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            sampler=self.sampler,
            scheduler=self.scheduler,
            seed=self.seed,
            model=self.model,
            batch_size=self.images,
            clip_skip=self.clip_skip,
            loras=tuple(Lora(one.name, one.weight) for one in self.loras) if self.loras else (),
            upscale=None if upscale is None else Upscale(upscale.model, upscale.factor),
            image=self.image,
            strength=self.strength,
            mask=self.mask,
            controlnets=tuple(
                ControlNet(one.model, one.image, one.strength, one.start, one.end) for one in self.controlnets
            )
            if self.controlnets
            else (),
        )
