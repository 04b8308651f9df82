"""GIF: comments, texts and unknown application data go; pictures, timing and the loop count stay."""

from typing import Final

from comfy_api_service.media.sieve import Sieve, Steps

_PICTURE, _EXTENSION, _TRAILER = b",", b"!", b";"
_CONTROL, _APPLICATION = 0xF9, 0xFF
_LOOPS: Final = frozenset({b"NETSCAPE2.0", b"ANIMEXTS1.0"})


class GifCleaner(Sieve):
    name = "GIF picture"

    def __init__(self) -> None:
        super().__init__()
        self._pictures = 0

    def _steps(self) -> Steps[None]:
        head = yield from self._take(13)
        if head[:6] not in {b"GIF87a", b"GIF89a"}:
            raise self._broken("it does not begin as one")
        width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        if not width or not height:
            raise self._broken("its header makes no sense")
        self.size = (width, height)
        self._emit(head)
        yield from self._colours(head[10])
        while (block := (yield from self._take(1))) != _TRAILER:
            if block == _PICTURE:
                yield from self._picture()
            elif block == _EXTENSION:
                yield from self._extension()
            else:
                raise self._broken("its structure is damaged")
        if not self._pictures:
            raise self._broken("it has no picture data")
        self.known = True
        self._emit(_TRAILER)

    def _colours(self, flags: int) -> Steps[None]:
        if flags & 0x80:
            yield from self._copy(3 << (flags & 7) + 1)

    def _picture(self) -> Steps[None]:
        self._pictures += 1
        if self._pictures > 1:
            self.animated = self.known = True
        head = yield from self._take(9)
        self._emit(_PICTURE + head)
        yield from self._colours(head[8])
        yield from self._copy(1)
        yield from self._blocks(keep=True)

    def _extension(self) -> Steps[None]:
        label, length = yield from self._take(2)
        first = yield from self._take(length)
        keep = label == _CONTROL or (label == _APPLICATION and first in _LOOPS)
        if keep:
            self._emit(_EXTENSION + bytes((label, length)) + first)
        if length:
            yield from self._blocks(keep=keep)
        elif keep:
            raise self._broken("its structure is damaged")

    def _blocks(self, *, keep: bool) -> Steps[None]:
        """Blocks of up to 255 bytes, up to the empty one; jumps over all that are in memory at once."""
        while True:
            if not (yield from self._wait()):
                raise self._broken("it is cut short")
            have, start = self._have, self._at
            at, end = start, len(have)
            while at < end and have[at]:
                at += have[at] + 1
            last = at < end
            self._at = at + 1 if last else min(at, end)
            if keep:
                self._emit(memoryview(have)[start : self._at])
            if last:
                return
            if at > end:
                yield from self._copy(at - end) if keep else self._drop(at - end)
