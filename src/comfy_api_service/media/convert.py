"""Pictures in another format or size, by Pillow, in the threads of an executor that the caller gives."""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Final

from comfy_api_service.domain.job import OutputOptions

MAX_PIXELS: Final = 64_000_000


async def convert(
    data: bytes,
    options: OutputOptions,
    *,
    executor: Executor,
    embed: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> bytes:
    raise NotImplementedError


async def thumbnail(data: bytes, size: int, *, executor: Executor, max_pixels: int = MAX_PIXELS) -> bytes:
    """A WebP picture that fits into `size` × `size` pixels."""
    raise NotImplementedError
