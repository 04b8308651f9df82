"""What flows along the links of a graph: pictures, latents, models and the rest. Immutable."""

import dataclasses
from typing import Any

from PIL import Image

Picture = Image.Image


@dataclasses.dataclass(frozen=True, slots=True)
class Images:
    """An IMAGE: a batch of RGB pictures of one size."""

    frames: tuple[Picture, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames[0].size

    def __str__(self) -> str:
        width, height = self.size
        return f"tensor([[[[...]]]], size=({len(self.frames)}, {height}, {width}, 3))"


@dataclasses.dataclass(frozen=True, slots=True)
class Mask:
    """A MASK: 255 where it applies."""

    picture: Picture

    def __str__(self) -> str:
        return f"tensor([[[...]]], size=(1, {self.picture.height}, {self.picture.width}))"


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    name: str
    loras: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    names: tuple[str, ...]
    skip: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Vae:
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A control net, an upscaler, a style model …: nothing but its kind and name matter."""

    kind: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Conditioning:
    text: str
    notes: tuple[str, ...] = ()
    guide: Picture | None = None
    """The picture of a control net."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what a drawn picture looks like."""

    prompt: str
    negative: str
    model: str
    seed: int
    index: int
    width: int
    height: int
    steps: int
    cfg: float
    sampler: str
    denoise: float = 1.0
    loras: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    base: Picture | None = None
    mask: Picture | None = None
    guide: Picture | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Latent:
    """A LATENT; sizes in pixels. Each frame is still empty, an encoded picture, or a recipe to draw."""

    width: int
    height: int
    frames: tuple[Picture | Recipe | None, ...]
    mask: Picture | None = None

    def __str__(self) -> str:
        shape = f"({len(self.frames)}, 4, {self.height // 8}, {self.width // 8})"
        return f"{{'samples': tensor([[[[...]]]], size={shape})}}"


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Guider:
    model: Model
    positive: Conditioning
    negative: Conditioning
    cfg: float


@dataclasses.dataclass(frozen=True, slots=True)
class Sigmas:
    steps: int
    scheduler: str
    denoise: float


@dataclasses.dataclass(frozen=True, slots=True)
class Video:
    images: Images
    fps: float


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a node gives: its outputs by slot and, of an output node, what clients are told."""

    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None
    made_by: str = ""
    """The id of the node that ran for it; the same node under another id is answered from cache."""
