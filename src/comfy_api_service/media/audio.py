"""FLAC, MP3 and WAV: the sound stays; tags, pictures and the graph go.

Not noticed: a FLAC or MP3 file that is cut within its sound, since neither states its length in bytes.
"""

from typing import Final

from comfy_api_service.media.sieve import Sieve, Steps

_STREAM_INFO, _SEEK_TABLE, _LAST = 0, 3, 0x80
_SEEK_TABLE_LIMIT: Final = 1 << 20
_ID3_V1: Final = 128
"""Bytes of the oldest tag, at the very end of the file."""
_WAV_KEPT: Final = frozenset({b"fmt ", b"fact", b"data"})


class FlacCleaner(Sieve):
    """Keeps the stream's data and the seek table (its offsets count from the first frame)."""

    name = "FLAC file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True

    def _steps(self) -> Steps[None]:
        if (yield from self._take(4)) != b"fLaC":
            raise self._broken("it does not begin as one")
        kept: list[tuple[int, bytes]] = []
        last = False
        while not last:
            head = yield from self._take(4)
            kind, length, last = head[0] & 0x7F, int.from_bytes(head[1:]), bool(head[0] & _LAST)
            if not kept and (kind, length) != (_STREAM_INFO, 34):
                raise self._broken("its header is absent")
            if not kept or (kind == _SEEK_TABLE and len(kept) == 1 and length <= _SEEK_TABLE_LIMIT):
                kept.append((kind, (yield from self._take(length))))
            else:
                yield from self._drop(length)
        self._emit(b"fLaC")
        for number, (kind, data) in enumerate(kept, 1):
            self._emit(bytes((kind | (_LAST if number == len(kept) else 0),)) + len(data).to_bytes(3) + data)
        sync = yield from self._take(2)
        if sync[0] != 0xFF or sync[1] & 0xFE != 0xF8:
            raise self._broken("it has no sound")
        self._emit(sync)
        yield from self._copy_rest()


class Mp3Cleaner(Sieve):
    """Drops ID3 tags, version 2 at the beginning and version 1 at the end."""

    name = "MP3 file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True

    def _steps(self) -> Steps[None]:
        while (head := (yield from self._take(4)))[:3] == b"ID3":
            rest = yield from self._take(6)
            length = 0
            for byte in rest[2:]:
                length = length << 7 | byte & 0x7F
            yield from self._drop(length + (10 if rest[1] & 0x10 else 0))
        if head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
            raise self._broken("it has no sound")
        self._emit(head)
        held = b""
        while (yield from self._wait()):
            held += bytes((yield from self._some(len(self._have))))
            self._emit(held[:-_ID3_V1])
            held = held[-_ID3_V1:]
        self._emit(b"" if held.startswith(b"TAG") and len(held) == _ID3_V1 else held)


class WavCleaner(Sieve):
    """Blanks in place every chunk that is not the sound's own; ends where the header says."""

    name = "WAV file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True

    def _steps(self) -> Steps[None]:
        head = yield from self._take(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise self._broken("it does not begin as one")
        self._emit(head)
        end = 8 + int.from_bytes(head[4:8], "little")
        seen = False
        while self._position + 1 < end:  # the last chunk's padding may be absent
            head = yield from self._take(8)
            name, length = head[:4], int.from_bytes(head[4:], "little")
            seen = seen or name == b"data"
            if name in _WAV_KEPT:
                self._emit(head)
                yield from self._copy(length)
            else:
                self._emit(b"JUNK" + head[4:])
                yield from self._blank(length)
            if length % 2 and (yield from self._wait()):
                yield from self._blank(1)
        if not seen:
            raise self._broken("it has no sound")
