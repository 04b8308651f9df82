"""The files that SD 3 and Flux models need beside their own, found by name in the catalogue."""

import re
from dataclasses import dataclass
from typing import Final

from comfy_api_service.domain.families import Family
from comfy_api_service.domain.inventory import Catalogue
from comfy_api_service.domain.recipes import Parts


@dataclass(frozen=True, slots=True)
class _Part:
    what: str
    kind: str
    pattern: re.Pattern[str]
    """Matched against the name in lower case."""
    example: str
    """The name the part usually goes by."""


_CLIP_L: Final = _Part(
    "the text encoder CLIP-L",
    "text_encoders",
    re.compile(r"clip[ ._-]?l(?![a-z])|vit-l"),
    "clip_l.safetensors",
)
_CLIP_G: Final = _Part(
    "the text encoder CLIP-G",
    "text_encoders",
    re.compile(r"clip[ ._-]?g(?![a-z])|bigg"),
    "clip_g.safetensors",
)
_T5: Final = _Part(
    "the text encoder T5-XXL",
    "text_encoders",
    re.compile(r"(?<!um)t5[ ._-]?(v1[ ._-]1[ ._-])?xxl"),
    "t5xxl_fp16.safetensors",
)
_FLUX_VAE: Final = _Part(
    "the VAE of Flux",
    "vae",
    re.compile(r"(^|[/\\ ._-])ae\.|flux(?![ ._-]?2)"),
    "ae.safetensors",
)
_SD3_VAE: Final = _Part("the VAE of SD 3", "vae", re.compile(r"sd[ ._-]?3"), "sd3_vae.safetensors")

_CLIPS: Final = {Family.FLUX: (_CLIP_L, _T5), Family.SD3: (_CLIP_L, _CLIP_G, _T5)}
_VAES: Final = {Family.FLUX: _FLUX_VAE, Family.SD3: _SD3_VAE}

_ENCODERS_INSIDE: Final = re.compile(r"incl|fp8_scaled|all[ ._-]?in[ ._-]?one|aio")
"""SD 3 checkpoints that bring their text encoders say so; `sd3.5_large_fp8_scaled` does bring them."""


class MissingPart(Exception):
    """No backend has the part."""

    def __init__(self, part: _Part) -> None:
        super().__init__(part.what)
        self.what = part.what
        self.kind = part.kind
        self.example = part.example


def find_parts(family: Family, model: str, *, bundled: bool, catalogue: Catalogue) -> Parts:
    """The parts that the model needs; of several that would do, those that most of its backends have.

    A checkpoint needs none, but an SD 3 checkpoint whose name does not say that its text encoders are inside
    (the published `sd3.5_large` has none) takes those of the pool, if a backend that has the checkpoint has
    all three. Raises MissingPart.
    """
    backends = catalogue.having("checkpoints" if bundled else "diffusion_models", model)
    if bundled:
        if family is not Family.SD3 or _ENCODERS_INSIDE.search(model.lower()):
            return Parts()
        clips, among = _gather(_CLIPS[family], frozenset(backends), catalogue)
        return Parts(clips) if clips and among else Parts()
    clips, among = _gather(_CLIPS[family], frozenset(backends), catalogue, needed=True)
    vaes, _ = _gather((_VAES[family],), among or frozenset(backends), catalogue, needed=True)
    return Parts(clips, vaes[0])


def _gather(
    parts: tuple[_Part, ...], backends: frozenset[str], catalogue: Catalogue, *, needed: bool = False
) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of the parts, and those of the backends that have them all; () if one is nowhere."""
    names = []
    among = backends
    for part in parts:
        of_kind = catalogue.models.get(part.kind, {})
        found = {name: who for name, who in of_kind.items() if part.pattern.search(name.lower())}
        if not found:
            if needed:
                raise MissingPart(part)
            return (), frozenset()
        name = min(found, key=lambda name: (-len(among.intersection(found[name])), name))
        among = among.intersection(found[name])
        names.append(name)
    return tuple(names), among
