"""WebP, by RFC 9649: Exif, XMP and unknown chunks go, the header's size and flags are made to fit."""

import struct
from collections.abc import Mapping
from typing import Final

from comfy_api_service.media import exif
from comfy_api_service.media.errors import TooLarge
from comfy_api_service.media.sieve import Sieve, Steps

_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02
_FRAME_HEAD: Final = 16
_KEPT: Final = frozenset({b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})


class WebpCleaner(Sieve):
    """Holds the file in memory, as its first bytes tell the size of what is left; at most `limit` bytes."""

    name = "WebP picture"

    def __init__(self, embed: Mapping[str, str] | None = None, *, limit: int) -> None:
        super().__init__()
        self._embed = embed
        self._limit = limit
        self._canvas: bytes | None = None
        self._icc = False
        self._alpha = False
        self._frames = 0
        self._pictures = 0

    def _steps(self) -> Steps[None]:
        head = yield from self._take(12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP":
            raise self._broken("it does not begin as one")
        left = int.from_bytes(head[4:8], "little") - 4
        if left > self._limit:
            raise TooLarge("The picture is larger than is accepted.")
        kept: list[bytes] = []
        while left > 0:
            name, length = yield from self._chunk_head(left)
            left -= 8 + length + length % 2
            if name in _KEPT or name == b"VP8X":
                data = yield from self._take(length)
                yield from self._drop(length % 2)
                kept.append(self._part(name, data))
            elif name == b"EXIF":
                block = (yield from self._take(length)).removeprefix(b"Exif\0\0")
                self.orientation = exif.orientation_of(block)
                yield from self._drop(length % 2)
            else:
                yield from self._drop(length + length % 2)
        self._check()
        self.known = True
        block = exif.build(self._embed)
        if block:
            kept.append(_chunk(b"EXIF", block))
        body = b"".join((self._extended(bool(block)), *kept))
        self._emit(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)

    def _chunk_head(self, left: int) -> Steps[tuple[bytes, int]]:
        if left < 8:
            raise self._broken("its structure is damaged")
        head = yield from self._take(8)
        length = int.from_bytes(head[4:], "little")
        if 8 + length + length % 2 > left:
            raise self._broken("its structure is damaged")
        return head[:4], length

    def _part(self, name: bytes, data: bytes) -> bytes:
        """The chunk as it is kept (b"" for the extended header, which is written anew)."""
        if name == b"VP8X":
            if len(data) < 10 or self._canvas is not None or self.size is not None:
                raise self._broken("its header makes no sense")
            self._canvas = data[:10]
            self.animated = bool(data[0] & _ANIMATION)
            self.size = (int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1)
            return b""
        if name == b"ANMF":
            data = self._frame(data)
        elif name == b"ICCP":
            self._icc = True
        elif name in {b"VP8 ", b"VP8L"}:
            self._pictures += 1
            size = self._picture(name, data)
            self.size = self.size or size
        return _chunk(name, data)

    def _frame(self, data: bytes) -> bytes:
        """A frame of an animation, without unknown chunks in it."""
        self._frames += 1
        parts, at = [data[:_FRAME_HEAD]], _FRAME_HEAD
        pictures = 0
        while at < len(data):
            name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            inner = data[at + 8 : at + 8 + length]
            at += 8 + length + length % 2
            if at > len(data):
                raise self._broken("a frame is cut short")
            if name in {b"VP8 ", b"VP8L"}:
                self._picture(name, inner)
                pictures += 1
            if name in {b"VP8 ", b"VP8L", b"ALPH"}:
                parts.append(_chunk(name, inner))
        if pictures != 1:
            raise self._broken("a frame has no picture")
        return b"".join(parts)

    def _picture(self, name: bytes, data: bytes) -> tuple[int, int]:
        """Width and height of a bitstream, after a look at its header."""
        if name == b"VP8L":
            bits = int.from_bytes(data[1:5], "little")
            if len(data) < 6 or data[0] != 0x2F or bits >> 29:
                raise self._broken("its picture data are damaged")
            self._alpha = bool(bits >> 28 & 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        first_part = int.from_bytes(data[:3], "little") >> 5
        if len(data) < 10 or data[0] & 1 or data[3:6] != b"\x9d\x01\x2a" or first_part > len(data) - 10:
            raise self._broken("its picture data are damaged")
        width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", data, 6))
        if not width or not height:
            raise self._broken("its picture data are damaged")
        return width, height

    def _check(self) -> None:
        whole = self._frames > 0 and not self._pictures if self.animated else self._pictures == 1
        if not whole or self.size is None or (self._frames and not self.animated):
            raise self._broken("it lacks its picture")

    def _extended(self, told: bool) -> bytes:
        """The extended header: as it was, with flags that are true; none if none is needed."""
        canvas = self._canvas
        if canvas is None:
            if not told or self.size is None:
                return b""
            width, height = self.size
            flags = _ALPHA if self._alpha else 0
            canvas = (
                bytes((flags, 0, 0, 0))
                + (width - 1).to_bytes(3, "little")
                + (height - 1).to_bytes(3, "little")
            )
        flags = canvas[0] & (_ALPHA | _ANIMATION) | (_ICC if self._icc else 0) | (_EXIF if told else 0)
        return _chunk(b"VP8X", bytes((flags,)) + b"\0\0\0" + canvas[4:])


def _chunk(name: bytes, data: bytes) -> bytes:
    return b"".join((name, struct.pack("<I", len(data)), data, b"\0" * (len(data) % 2)))
