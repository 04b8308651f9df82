"""One pass from a backend's stream to the store: recognise, clean, check, convert if asked.

    prepared = await intake.intake(view, options=job.output, embed=None, limit_bytes=limit)
    stored = await storage.put(key, prepared, media_type=prepared.media_type)
    prepared.finish_check()

A file that turns out not to be whole makes the stream itself raise `MediaError` at its end, so that the
store drops what it has: nothing cut short ever gets its key.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from concurrent.futures import Executor
from typing import Final, Protocol

from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.media.check import verify_picture
from comfy_api_service.media.clean import LIMIT, Cleaner, cleaner_for
from comfy_api_service.media.convert import KIND_OF, MAX_PIXELS, convert
from comfy_api_service.media.errors import MediaError, TooLarge, TooManyBytes
from comfy_api_service.media.sniff import HEAD, Kind, sniff

_PIXEL_BYTES: Final = 8
"""Of the largest pixel there is (four channels of 16 bits): no whole picture is much larger than its pixels."""
_SLACK: Final = 1 << 20


class _Sized(Protocol):
    """What tells a size: a cleaner at work, or a picture that was looked at."""

    @property
    def size(self) -> tuple[int, int] | None: ...


class Prepared:
    """An output on its way to the store: what it is, and, once, an async iterator of its cleaned bytes."""

    def __init__(self, kind: Kind, measured: _Sized, chunks: AsyncIterator[bytes]) -> None:
        self._kind = kind
        self._measured = measured
        self._chunks = chunks
        self._whole = False

    @property
    def kind(self) -> str:
        """image, animation, video, audio, text or file."""
        return self._kind.kind

    @property
    def media_type(self) -> str:
        return self._kind.media_type

    @property
    def extension(self) -> str:
        """Without a dot."""
        return self._kind.extension

    @property
    def width(self) -> int | None:
        """Pixels; of a picture known at once, of a video once the stream is through."""
        return self._measured.size[0] if self._measured.size else None

    @property
    def height(self) -> int | None:
        return self._measured.size[1] if self._measured.size else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The cleaned bytes; raises `MediaError` if the file is not whole, `TooLarge` if it has too many."""
        async for chunk in self._chunks:
            if chunk:
                yield chunk
        self._whole = True

    def finish_check(self) -> None:
        """Raises `MediaError` unless the stream was read to its end and the file found whole."""
        if not self._whole:
            raise MediaError("The output was not found to be whole.")


class Intake:
    """Prepares outputs; `executor` runs conversions, of pictures of at most `max_pixels`."""

    def __init__(self, executor: Executor, *, max_pixels: int = MAX_PIXELS) -> None:
        self._executor = executor
        self._max_pixels = max_pixels

    async def intake(
        self,
        chunks: AsyncIterable[bytes],
        *,
        options: OutputOptions,
        embed: Mapping[str, str] | None,
        limit_bytes: int,
    ) -> Prepared:
        """Reads until kind and size are known (a conversion reads all), then leaves the rest to the stream.

        A conversion is done for single pictures; animations, videos and all else keep their format.
        Raises `MediaError` for what is empty, not sound, or cannot be converted; `TooManyBytes` beyond
        `limit_bytes`; `TooLarge` for a picture that would have to be held in memory and is too large for that.
        """
        source = _limited(chunks, limit_bytes)
        head = await _head(source)
        kind = sniff(head)
        cleaner = cleaner_for(kind, embed=embed, limit=min(limit_bytes, LIMIT))
        ready = [cleaner.feed(head)]
        held = len(ready[0])
        while not cleaner.known:
            chunk = await anext(source, None)
            if chunk is None:
                ready.append(cleaner.finish())
                break
            ready.append(cleaner.feed(chunk))
            held += len(ready[-1])
            if held > LIMIT:
                raise TooLarge("The picture is larger than is accepted.")
        kind = kind.moving(cleaner.animated)
        stream = _rest(ready, cleaner, source)
        if not _converts(kind, options):
            return Prepared(kind, cleaner, stream)
        data = await _whole(stream, self._largest(cleaner.size))
        changed = await convert(
            data, options, executor=self._executor, embed=embed, max_pixels=self._max_pixels
        )
        picture = verify_picture(changed)
        return Prepared(picture.kind, picture, _once(changed))

    def _largest(self, size: tuple[int, int] | None) -> int:
        """Bytes that a picture of this size may have, to be held whole; raises `TooLarge` for too many pixels."""
        if size is None:
            return LIMIT
        pixels = size[0] * size[1]
        if pixels > self._max_pixels:
            raise TooLarge("The picture has more pixels than are accepted.")
        return min(pixels * _PIXEL_BYTES + _SLACK, LIMIT)


def _converts(kind: Kind, options: OutputOptions) -> bool:
    wanted = KIND_OF.get(options.format)
    return kind.kind == "image" and wanted is not None and wanted.media_type != kind.media_type


async def _limited(chunks: AsyncIterable[bytes], limit: int) -> AsyncGenerator[bytes]:
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise TooManyBytes("The output is larger than is accepted.")
        yield chunk


async def _whole(stream: AsyncIterator[bytes], most: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for piece in stream:
        total += len(piece)
        if total > most:
            raise TooLarge("The picture is larger than is accepted.")
        parts.append(piece)
    return b"".join(parts)


async def _head(source: AsyncIterator[bytes]) -> bytes:
    """The first chunks, of `HEAD` bytes or more if there are so many."""
    parts: list[bytes] = []
    have = 0
    while have < HEAD and (chunk := await anext(source, None)) is not None:
        parts.append(chunk)
        have += len(chunk)
    if not have:
        raise MediaError("The output is empty.")
    return b"".join(parts)


async def _rest(ready: list[bytes], cleaner: Cleaner, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while ready:
        yield ready.pop(0)
    async for chunk in source:
        yield cleaner.feed(chunk)
    yield cleaner.finish()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
