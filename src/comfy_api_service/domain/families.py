"""Model families: which recipe fits a model, told by its name.

ComfyUI says nothing of a file but its name and its folder, so this is a guess; a workflow of one's own does
not need it.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Family(StrEnum):
    """Models that one recipe fits."""

    SD15 = "sd15"
    """Stable Diffusion 1.x and 2.x: the same graph."""
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"


_FLUX_2: Final = re.compile(r"flux[ ._-]?2[ ._-]?(dev|klein|pro|flex|max)")
_SD3: Final = re.compile(r"(sd|stable[ _-]?diffusion)[ _-]?3([._-]?5)?(?![0-9])")
_SDXL: Final = re.compile(r"xl|pony|illustrious|noob[ _-]?ai|animagine")
_SD15: Final = re.compile(
    r"(sd|stable[ _-]?diffusion)[ ._-]?v?(1[._-]?[45]|2[._-]?[01])(?![0-9])|^v(1-[45]|2-[01])"
    r"|dreamshaper|deliberate|realistic[ _-]?vision|anything[ _-]?v|counterfeit|meinamix|abyssorange"
    r"|epicrealism|rev[ _-]?animated"
)


@lru_cache(maxsize=1024)
def named_family(name: str) -> Family | None:
    """The family that the name tells; None if it tells none. The folder in the name counts too."""
    lowered = name.lower()
    if "flux" in lowered:
        return Family.FLUX
    if _SD3.search(lowered):
        return Family.SD3
    if _SDXL.search(lowered):
        return Family.SDXL
    return Family.SD15 if _SD15.search(lowered) else None


def like(own: str, names: Iterable[str]) -> str | None:
    """One of these that fits where `own` stood: itself, else the first of its family, else the first whose name tells
    none. None if all are of other families; if `own` tells none, any will do.
    """
    known = list(names)
    family = named_family(own)
    if own in known or family is None:
        return own if own in known else next(iter(known), None)
    return next((name for wanted in (family, None) for name in known if named_family(name) is wanted), None)


def is_flux_2(name: str) -> bool:
    """True for FLUX.2, which takes other text encoders and another VAE than FLUX.1: no recipe fits it yet."""
    return _FLUX_2.search(name.lower()) is not None
