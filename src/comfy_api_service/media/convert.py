"""Pictures in another format or size, by Pillow, in the threads of an executor that the caller gives.

Pillow sees only what was found whole, within the limit of pixels, and cleaned of everything but the picture.
"""

import asyncio
import io
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final

from PIL import Image, ImageOps

from comfy_api_service.domain.job import OutputFormat, OutputOptions
from comfy_api_service.media import sniff
from comfy_api_service.media.check import Picture, verify_picture
from comfy_api_service.media.clean import clean
from comfy_api_service.media.errors import CannotConvert, MediaError, TooLarge

MAX_PIXELS: Final = 64_000_000
"""Width times height of the largest picture that is decoded."""
THUMBNAIL_QUALITY: Final = 80

KIND_OF: Final[Mapping[OutputFormat, sniff.Kind]] = {
    OutputFormat.PNG: sniff.PNG,
    OutputFormat.JPEG: sniff.JPEG,
    OutputFormat.WEBP: sniff.WEBP,
}
_PILLOW_NAME: Final[Mapping[str, str]] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
}
_ICC_SPACE: Final[Mapping[bytes, frozenset[str]]] = {
    b"RGB ": frozenset({"RGB", "RGBA"}),
    b"GRAY": frozenset({"L", "LA"}),
}
_PNG_LEVEL: Final = 4
"""zlib's level: what ComfyUI itself uses for what it saves."""
_WHITE: Final = (255, 255, 255, 255)


async def convert(
    data: bytes,
    options: OutputOptions,
    *,
    executor: Executor,
    embed: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> bytes:
    """The picture in the format asked for, cleaned; one that is in it already is not encoded anew.

    Transparency becomes white in a JPEG. Raises `MediaError`; `CannotConvert` for an animation that would
    have to become another format, `TooLarge` for one of more than `max_pixels`.
    """
    return await _in_thread(executor, lambda: _converted(data, options, embed, max_pixels))


async def thumbnail(data: bytes, size: int, *, executor: Executor, max_pixels: int = MAX_PIXELS) -> bytes:
    """A WebP picture that fits into `size` by `size` pixels, never larger than the picture itself.

    An animation shows its first frame. Raises `MediaError`, `TooLarge`.
    """
    return await _in_thread(executor, lambda: _small(data, size, max_pixels))


async def _in_thread(executor: Executor, work: Callable[[], bytes]) -> bytes:
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def _converted(
    data: bytes, options: OutputOptions, embed: Mapping[str, str] | None, max_pixels: int
) -> bytes:
    picture = verify_picture(data)
    wanted = KIND_OF.get(options.format)
    if wanted is None or wanted.media_type == picture.kind.media_type:
        return clean(data, embed=embed)
    if picture.kind.kind == "animation":
        raise CannotConvert("An animation cannot be delivered in this format.")

    def encode(image: Image.Image) -> bytes:
        return _encoded(image, options.format, options.quality)

    return clean(_with_pillow(data, picture, max_pixels, encode), embed=embed)


def _small(data: bytes, size: int, max_pixels: int) -> bytes:
    if size < 1:
        raise ValueError("a thumbnail has at least one pixel")

    def encode(image: Image.Image) -> bytes:
        image.thumbnail((size, size), reducing_gap=2.0)
        return _encoded(image, OutputFormat.WEBP, THUMBNAIL_QUALITY)

    return _with_pillow(data, verify_picture(data), max_pixels, encode)


def _with_pillow(
    data: bytes, picture: Picture, max_pixels: int, work: Callable[[Image.Image], bytes]
) -> bytes:
    """What `work` makes of the decoded, upright picture in a simple mode."""
    if picture.size[0] * picture.size[1] > max_pixels:
        raise TooLarge("The picture has more pixels than are accepted.")
    try:
        name = _PILLOW_NAME[picture.kind.media_type]
        with Image.open(io.BytesIO(clean(data)), formats=[name]) as image:
            if image.size != picture.size:
                raise MediaError("The picture is not of the size that it states.")
            if name == "JPEG":
                ImageOps.exif_transpose(image, in_place=True)
            return work(_simple(image))
    except MediaError:
        raise
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise MediaError("The picture cannot be decoded.") from error


def _simple(image: Image.Image) -> Image.Image:
    """The picture as L, RGB or RGBA, with its colour profile if that still fits."""
    profile = image.info.get("icc_profile")
    transparent = image.has_transparency_data
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would cut off, not scale
        plain = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode in {"1", "L"} and not transparent:
        plain = image.convert("L")
    else:
        plain = image.convert("RGBA" if transparent else "RGB")
    plain.info = {"icc_profile": profile} if profile and _fits(profile, plain.mode) else {}
    return plain


def _fits(profile: bytes, mode: str) -> bool:
    return mode in _ICC_SPACE.get(profile[16:20], frozenset())


def _encoded(image: Image.Image, wanted: OutputFormat, quality: int) -> bytes:
    out = io.BytesIO()
    profile = image.info.get("icc_profile")
    if wanted is OutputFormat.JPEG:
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
        image.save(out, "JPEG", quality=quality, optimize=True, icc_profile=profile)
    elif wanted is OutputFormat.WEBP:
        if image.mode == "L":  # WebP knows no grey, so a profile of grey does not fit either
            image, profile = image.convert("RGB"), None
        image.save(out, "WEBP", quality=quality, method=4, icc_profile=profile)
    else:
        image.save(out, "PNG", compress_level=_PNG_LEVEL, icc_profile=profile)
    return out.getvalue()
