"""MP4 and QuickTime: what stands beside the picture and sound is blanked where it is, so no offset changes.

`udta`, `meta` (where ComfyUI puts the whole graph), `uuid` and any box that is not known to be needed become
`free` boxes full of zeros. Not reached: the names of handlers and encoders deep inside a track.
"""

from collections.abc import Mapping
from typing import Final

from comfy_api_service.media.sieve import Sieve, Steps

_TOP: Final = frozenset({b"ftyp", b"styp", b"mdat", b"sidx", b"ssix", b"mfra", b"prft", b"wide", b"pdin"})
_INSIDE: Final[Mapping[bytes, frozenset[bytes]]] = {
    b"moov": frozenset({b"mvhd", b"iods", b"mvex", b"pssh", b"trak"}),
    b"trak": frozenset({b"tkhd", b"tref", b"edts", b"mdia", b"load", b"tapt", b"trgr"}),
    b"moof": frozenset({b"mfhd", b"traf", b"pssh"}),
}
"""Boxes that are entered, and what stays in each."""
_TRACK_HEADS: Final = {84: 76, 96: 88}
"""Length of a track's header, in its two versions, and where width and height stand in it."""


class Mp4Cleaner(Sieve):
    name = "MP4 file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True
        self._seen: set[bytes] = set()

    def _steps(self) -> Steps[None]:
        while (yield from self._wait()):
            name, length = yield from self._box_head(None)
            if not self._seen and name != b"ftyp":
                raise self._broken("it does not begin as one")
            self._seen.add(name)
            if length is None:
                yield from self._copy_rest()
            elif name in _INSIDE:
                yield from self._inside(name, length)
            elif name in _TOP:
                yield from self._copy(length)
            else:
                yield from self._blank(length)
        if b"moov" not in self._seen or not self._seen & {b"mdat", b"moof"}:
            raise self._broken("it is cut short")

    def _inside(self, parent: bytes, left: int) -> Steps[None]:
        while left:
            before = self._position
            name, length = yield from self._box_head(parent)
            left -= self._position - before
            if length is None or length > left:
                raise self._broken("its structure is damaged")
            left -= length
            if name == b"trak" and parent == b"moov":
                yield from self._inside(name, length)
            elif name == b"tkhd" and length in _TRACK_HEADS:
                data = yield from self._take(length)
                self._measure(data[_TRACK_HEADS[length] :])
                self._emit(data)
            elif name in _INSIDE[parent]:
                yield from self._copy(length)
            else:
                yield from self._blank(length)

    def _box_head(self, parent: bytes | None) -> Steps[tuple[bytes, int | None]]:
        """Name and length of a box's content (None: up to the file's end); its head is emitted."""
        head = yield from self._take(8)
        size, name = int.from_bytes(head[:4]), head[4:]
        large = (yield from self._take(8)) if size == 1 else b""
        length = int.from_bytes(large) - 16 if large else size - 8
        if size == 0:
            if parent is not None or name != b"mdat":
                raise self._broken("its structure is damaged")
            self._emit(head)
            return name, None
        if length < 0:
            raise self._broken("its structure is damaged")
        kept = _TOP | _INSIDE.keys() - {b"trak"} if parent is None else _INSIDE[parent]
        self._emit((head if name in kept else head[:4] + b"free") + large)
        return name, length

    def _measure(self, data: bytes) -> None:
        width, height = int.from_bytes(data[:2]), int.from_bytes(data[4:6])
        if self.size is None and width and height:
            self.size = (width, height)
