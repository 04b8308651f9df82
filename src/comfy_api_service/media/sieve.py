"""A parser that is fed chunks of any size but is written as if it could wait for more.

A format's `_steps` is a generator that takes, copies, drops and blanks bytes in the file's order. Whatever
it emits is handed out at once, so nothing is held in memory but what a format itself must see whole.
"""

from collections.abc import Generator
from typing import Final, TypeVar

from comfy_api_service.media.errors import MediaError
from comfy_api_service.media.exif import UPRIGHT

_T = TypeVar("_T")
Steps = Generator[None, None, _T]

_FREE_TAKES: Final = 10_000
_BYTES_A_TAKE: Final = 16
"""A file of nothing but tiny parts would cost time out of proportion: below this mean it is refused."""
_ZEROS: Final = bytes(1 << 16)


class Sieve:
    """Feeds `_steps`; after the end that a format knows by itself, the rest is dropped.

    `size` is (width, height) in pixels once it is learnt; `known` is true as soon as neither `size` nor
    `animated` will change for the better by waiting (for videos and sounds: from the start).
    """

    name = "file"

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.animated = False
        self.known = False
        self.orientation = UPRIGHT
        """What the file's Exif block told of how to turn the picture, once `finish` has returned."""
        self._have = b""
        self._at = 0
        self._before = 0
        self._ended = False
        self._done = False
        self._takes = 0
        self._out: list[bytes | memoryview] = []
        self._fault: MediaError | None = None
        self._running = self._steps()

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on now that `chunk` is here; raises `MediaError`, then each time again."""
        self._before += len(self._have)
        self._have, self._at = chunk, 0
        return self._run()

    def finish(self) -> bytes:
        """What was held back; raises `MediaError` if the file is not whole. No `feed` may follow."""
        self._ended = True
        out = self.feed(b"")
        if not self._done:
            raise self._broken("it is cut short")
        return out

    @property
    def surplus(self) -> bytes:
        """What of the last chunk follows the end that the format knows: it was dropped."""
        return self._have[self._at :] if self._done else b""

    def _steps(self) -> Steps[None]:
        raise NotImplementedError

    def _run(self) -> bytes:
        if self._fault is not None:
            raise self._fault
        if not self._done:
            try:
                next(self._running)
            except StopIteration:
                self._done = True
            except MediaError as fault:
                self._fault = fault
                raise
        out, self._out = self._out, []
        if len(out) == 1 and isinstance(out[0], bytes):
            return out[0]
        return b"".join(out)

    # What `_steps` is made of.

    @property
    def _position(self) -> int:
        """Bytes of the file that were consumed."""
        return self._before + self._at

    def _broken(self, why: str) -> MediaError:
        return MediaError(f"This is not a sound {self.name}: {why}.")

    def _emit(self, data: bytes | memoryview) -> None:
        if data:
            self._out.append(data)

    def _wait(self) -> Steps[bool]:
        """Wait for more, with all that is there consumed; False at the end of the file."""
        while self._at == len(self._have):
            if self._ended:
                return False
            yield
        return True

    def _some(self, most: int) -> Steps[memoryview]:
        """The next bytes, at least one and at most `most`, without a copy."""
        if self._at == len(self._have) and not (yield from self._wait()):
            raise self._broken("it is cut short")
        piece = memoryview(self._have)[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _take(self, length: int) -> Steps[bytes]:
        """Exactly so many bytes; only for parts that may stand in memory whole."""
        self._takes += 1
        if self._takes > _FREE_TAKES and self._takes * _BYTES_A_TAKE > self._position:
            raise self._broken("it has too many small parts")
        end = self._at + length
        if end <= len(self._have):
            data = self._have[self._at : end]
            self._at = end
            return data
        parts: list[memoryview] = []
        while length:
            piece = yield from self._some(length)
            parts.append(piece)
            length -= len(piece)
        return b"".join(parts)

    def _copy(self, length: int) -> Steps[None]:
        while length:
            piece = yield from self._some(length)
            self._emit(piece)
            length -= len(piece)

    def _copy_rest(self) -> Steps[None]:
        while (yield from self._wait()):
            self._emit((yield from self._some(len(self._have))))

    def _drop(self, length: int) -> Steps[None]:
        while length:
            length -= len((yield from self._some(length)))

    def _blank(self, length: int, zeros: int | None = None) -> Steps[None]:
        """Consume so many bytes and emit as many zeros in their place, or another number of `zeros`."""
        left = length if zeros is None else zeros
        while length:
            piece = yield from self._some(min(length, len(_ZEROS)))
            self._emit(_ZEROS[: min(left, len(piece))])
            left -= min(left, len(piece))
            length -= len(piece)
        self._emit(_ZEROS[:left])


class Passage(Sieve):
    """Passes a file on as it is: for kinds that carry no metadata that is known here."""

    def __init__(self) -> None:
        super().__init__()
        self.known = True

    def _steps(self) -> Steps[None]:
        yield from self._copy_rest()
