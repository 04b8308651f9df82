"""One pass from a backend's stream to the store: recognise, clean, check, convert if asked.

    prepared = await intake.intake(view.chunks(), options=job.output, embed=None, limit_bytes=limit)
    stored = await storage.put(key, prepared, media_type=prepared.media_type)
    prepared.finish_check()
"""

from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from typing import Protocol

from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.media.convert import MAX_PIXELS


class Prepared(Protocol):
    """An output on its way; an async iterator of the cleaned bytes."""

    kind: str
    media_type: str
    extension: str

    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def finish_check(self) -> None: ...


class Intake:
    def __init__(self, executor: Executor, *, max_pixels: int = MAX_PIXELS) -> None: ...

    async def intake(
        self,
        chunks: AsyncIterator[bytes],
        *,
        options: OutputOptions,
        embed: Mapping[str, str] | None,
        limit_bytes: int,
    ) -> Prepared:
        raise NotImplementedError
