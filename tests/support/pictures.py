"""Small pictures, made anew, for tests of inputs."""

import io
from typing import Any

from PIL import Image


def picture(size: tuple[int, int] = (32, 16), mode: str = "RGB", seed: int = 1) -> Image.Image:
    """Of a pattern that depends on the seed and has no symmetry."""
    image = Image.new("RGB", size)
    image.putdata(
        [
            ((x * 7 + seed) % 256, (y * 11) % 256, (x * y + seed) % 256)
            for y in range(size[1])
            for x in range(size[0])
        ]
    )
    return image.convert(mode)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(seed: int = 1, size: tuple[int, int] = (32, 16), **options: Any) -> bytes:
    return encoded(picture(size, seed=seed), "PNG", **options)


def jpeg(seed: int = 1, size: tuple[int, int] = (32, 16), **options: Any) -> bytes:
    return encoded(picture(size, seed=seed), "JPEG", **options)


def webp(seed: int = 1, size: tuple[int, int] = (32, 16), **options: Any) -> bytes:
    return encoded(picture(size, seed=seed), "WEBP", **options)
