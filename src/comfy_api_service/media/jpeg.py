"""JPEG: what a decoder needs stays (with colour profile and orientation), comments and the like go."""

import re
from collections.abc import Mapping
from typing import Final

from comfy_api_service.media import exif
from comfy_api_service.media.sieve import Sieve, Steps

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP1, _APP2, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})
_APPLICATION: Final = frozenset(range(0xE0, 0xF0)) | {_COM}
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker within picture data: not an escaped 0xFF, not padding, not a restart."""
_MOST_SCANS: Final = 100
"""Each costs a decoder a pass over the whole picture; encoders write about ten."""
_SEGMENT: Final = 0xFFFF - 2
_EXIF_HEAD: Final = b"Exif\0\0"


class JpegCleaner(Sieve):
    """Keeps JFIF, ICC, Adobe and the picture's own segments, ends at EOI; `embed` becomes an Exif block.

    An orientation told by Exif is kept, alone: without it the picture would turn.
    """

    name = "JPEG picture"

    def __init__(self, embed: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._embed = embed
        self._told = False
        self._scans = 0

    def _steps(self) -> Steps[None]:
        if (yield from self._take(2)) != b"\xff\xd8":
            raise self._broken("it does not begin as one")
        self._emit(b"\xff\xd8")
        marker = yield from self._marker()
        while marker != _EOI:
            yield from self._segment(marker)
            if marker == _SOS:
                marker = yield from self._scan()
            else:
                marker = yield from self._marker()
        if not self._scans:
            raise self._broken("it has no picture data")
        self._emit(b"\xff\xd9")

    def _marker(self) -> Steps[int]:
        if (yield from self._take(1)) != b"\xff":
            raise self._broken("its structure is damaged")
        while (marker := (yield from self._take(1))[0]) == 0xFF:
            pass  # padding; too much of it counts as too many small parts
        return marker

    def _segment(self, marker: int) -> Steps[None]:
        if marker not in _FRAMES | _TABLES | _APPLICATION | {_SOS}:
            raise self._broken("its structure is damaged")
        length = int.from_bytes((yield from self._take(2))) - 2
        if length < 0:
            raise self._broken("its structure is damaged")
        data = yield from self._take(length)
        if marker in _APPLICATION:
            data = self._cut(marker, data)
            if not data:
                return
        elif not self._told:
            self._told = True
            self._tell()
        if marker in _FRAMES:
            self._frame(data)
        elif marker == _SOS:
            if self.size is None:
                raise self._broken("its header is absent")
            self._scans += 1
            if self._scans > _MOST_SCANS:
                raise self._broken("it has too many scans")
        self._emit_segment(marker, data)

    def _cut(self, marker: int, data: bytes) -> bytes:
        """What stays of application data; b"" if nothing does."""
        if marker == _APP0 and data.startswith(b"JFIF\0") and len(data) >= 14:
            return data[:12] + b"\0\0"  # without the thumbnail
        if marker == _APP2 and data.startswith(b"ICC_PROFILE\0"):
            return data
        if marker == _APP14 and data.startswith(b"Adobe"):
            return data[:12]
        if marker == _APP1 and data.startswith(_EXIF_HEAD):
            self.orientation = exif.orientation_of(data[len(_EXIF_HEAD) :])
        return b""

    def _tell(self) -> None:
        """Before the first segment of the picture: our own Exif block, if there is anything in it."""
        block = exif.build(self._embed, self.orientation, limit=_SEGMENT - len(_EXIF_HEAD))
        if block:
            self._emit_segment(_APP1, _EXIF_HEAD + block)

    def _frame(self, data: bytes) -> None:
        if len(data) < 9 or self.size is not None:
            raise self._broken("its header makes no sense")
        height, width = int.from_bytes(data[1:3]), int.from_bytes(data[3:5])
        if not width or not height:
            raise self._broken("its header makes no sense")
        self.size = (width, height)
        self.known = True

    def _emit_segment(self, marker: int, data: bytes) -> None:
        self._emit(b"".join((bytes((0xFF, marker)), (len(data) + 2).to_bytes(2), data)))

    def _scan(self) -> Steps[int]:
        """Copy picture data up to the next marker, which is returned."""
        while True:
            if not (yield from self._wait()):
                raise self._broken("it is cut short")
            have, at = self._have, self._at
            found = _MARKER.search(have, at)
            if found:
                self._emit(memoryview(have)[at : found.start()])
                self._at = found.end()
                return have[found.end() - 1]
            self._at = len(have)
            if have[-1] != 0xFF:
                self._emit(memoryview(have)[at:])
                continue
            # The chunk ends within what may be a marker: the next byte tells.
            self._emit(memoryview(have)[at:-1])
            after = (yield from self._some(1))[0]
            if _MARKER.match(bytes((0xFF, after))):
                return after
            self._emit(b"\xff")
            self._at -= 1
