"""PNG and APNG, by the specification's third edition: what makes the picture stays, what tells of it goes."""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

from comfy_api_service.media import exif
from comfy_api_service.media.errors import MediaError
from comfy_api_service.media.sieve import Sieve, Steps

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_KEPT_SMALL: Final = frozenset(
    {
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"pHYs",
        b"sBIT",
        b"bKGD",
        b"hIST",
        b"cICP",
        b"mDCV",
        b"cLLI",
    }
    | {b"acTL", b"fcTL", b"PLTE"}
)
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_IEND_CRC: Final = b"\xaeB`\x82"
_LONGEST: Final = 0x7FFFFFFF
_SMALL_LIMIT: Final = 8 << 20
"""Bytes of all kept chunks but the picture's own: they stand in memory while they are checked."""
_EXIF_LIMIT: Final = 1 << 20
"""Bytes of the largest Exif block that is looked into for the orientation."""


class PngCleaner(Sieve):
    """Keeps the chunks that a decoder needs, checks their CRCs, ends at IEND; `embed` becomes iTXt chunks."""

    name = "PNG picture"

    def __init__(self, embed: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._texts = dict(embed or {})
        self._small = 0
        self._data = 0
        self._frames: int | None = None
        self._frames_seen = 0

    def _steps(self) -> Steps[None]:
        if (yield from self._take(8)) != SIGNATURE:
            raise self._broken("it does not begin as one")
        self._emit(SIGNATURE)
        yield from self._header()
        for keyword, text in self._texts.items():
            self._emit(text_chunk(keyword, text))
        while True:
            length, name = yield from self._chunk_head()
            if name == b"IEND":
                break
            if name in {b"IDAT", b"fdAT"}:
                yield from self._picture_data(name, length)
            elif name in _KEPT_SMALL:
                yield from self._small_chunk(name, length)
            elif name == b"eXIf" and length <= _EXIF_LIMIT:
                self.orientation = exif.orientation_of((yield from self._take(length)))
                yield from self._drop(4)
            elif name[0] & 0x20:  # ancillary: nothing is lost without it
                yield from self._drop(length + 4)
            else:
                raise self._broken("it needs something unknown to be decoded")
        if length or (yield from self._take(4)) != _IEND_CRC:
            raise self._broken("its end is damaged")
        self._check()
        self._emit(chunk(b"IEND", b""))

    def _check(self) -> None:
        if not self._data:
            raise self._broken("it has no picture data")
        if self._frames is not None and self._frames != self._frames_seen:
            raise self._broken("it lacks frames")

    def _chunk_head(self) -> Steps[tuple[int, bytes]]:
        head = yield from self._take(8)
        length, name = int.from_bytes(head[:4]), head[4:]
        if length > _LONGEST or not (name.isalpha() and name.isascii()):
            raise self._broken("its structure is damaged")
        return length, name

    def _header(self) -> Steps[None]:
        length, name = yield from self._chunk_head()
        if (length, name) != (13, b"IHDR"):
            raise self._broken("its header is absent")
        data = yield from self._checked(name, length)
        width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
        if not (0 < width <= _LONGEST and 0 < height <= _LONGEST and depth in _DEPTHS.get(colour, ())):
            raise self._broken("its header makes no sense")
        if compression or filtering or interlace > 1:
            raise self._broken("its header makes no sense")
        self.size = (width, height)

    def _small_chunk(self, name: bytes, length: int) -> Steps[None]:
        self._small += length
        if self._small > _SMALL_LIMIT:
            raise self._broken("what stands beside the picture is too large")
        data = yield from self._checked(name, length)
        if name == b"acTL":
            if length != 8 or self._frames is not None or self._data:
                raise self._broken("its animation makes no sense")
            self._frames = int.from_bytes(data[:4])
            self.animated = self._frames > 1
        elif name == b"fcTL":
            self._frames_seen += 1

    def _checked(self, name: bytes, length: int) -> Steps[bytes]:
        data = yield from self._take(length)
        crc = yield from self._take(4)
        if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(crc):
            raise self._broken("its bytes were damaged")
        self._emit(b"".join((struct.pack(">I", length), name, data, crc)))
        return data

    def _picture_data(self, name: bytes, length: int) -> Steps[None]:
        """The large part: passed on while its CRC is counted, without a copy."""
        self.known = True
        if name == b"IDAT":
            self._data += length
        self._emit(struct.pack(">I", length) + name)
        crc = zlib.crc32(name)
        while length:
            piece = yield from self._some(length)
            crc = zlib.crc32(piece, crc)
            self._emit(piece)
            length -= len(piece)
        stated = yield from self._take(4)
        if crc != int.from_bytes(stated):
            raise self._broken("its bytes were damaged")
        self._emit(stated)


def chunk(name: bytes, data: bytes) -> bytes:
    return b"".join(
        (struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))
    )


def text_chunk(keyword: str, text: str) -> bytes:
    """An iTXt chunk; the keyword is of 1 to 79 printable Latin-1 characters, else `MediaError`."""
    try:
        key = keyword.encode("latin-1")
    except UnicodeEncodeError:
        key = b""
    if not 1 <= len(key) <= 79 or not keyword.isprintable() or keyword != keyword.strip():
        raise MediaError("This is not a keyword that a PNG picture can carry.")
    return chunk(b"iTXt", key + b"\0\0\0\0\0" + text.encode(errors="replace"))
