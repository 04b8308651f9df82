"""Ogg with Opus or Vorbis (RFC 3533, 7845): comments are blanked in place, page sums made anew.

Every page's checksum is verified, and each stream must have its last page: a cut file is noticed.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from comfy_api_service.media.sieve import Sieve, Steps

_HEAD: Final = struct.Struct("<4sBBqIIIB")
_ENDS: Final = 0x04
_MOST_STREAMS: Final = 16
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NOTHING_TOLD: Final = {
    b"OpusHead": b"OpusTags" + bytes(8),
    b"\x01vorbis": b"\x03vorbis" + bytes(8) + b"\x01",
}
"""By the beginning of a stream: the comment packet with no vendor and no comments (zeros may follow it)."""


@dataclass(slots=True)
class _Stream:
    """How far a logical stream was read: the packet that goes on, and how much of it there was."""

    comments: bytes
    packet: int = 0
    length: int = 0
    ended: bool = False


class OggCleaner(Sieve):
    name = "Ogg file"

    def __init__(self) -> None:
        super().__init__()
        self.known = True
        self._streams: dict[int, _Stream] = {}

    def _steps(self) -> Steps[None]:
        while (yield from self._wait()):
            head = yield from self._take(_HEAD.size)
            magic, version, flags, _, serial, _, crc, segments = _HEAD.unpack(head)
            if magic != b"OggS" or version:
                raise self._broken("its structure is damaged")
            lacing = yield from self._take(segments)
            body = yield from self._take(sum(lacing))
            head = head[:22] + b"\0\0\0\0" + head[26:] + lacing
            if _crc(head + body) != crc:
                raise self._broken("its bytes were damaged")
            stream = self._stream(serial, body)
            stream.ended = bool(flags & _ENDS)
            if stream.packet < 2:
                body = _without_comments(stream, lacing, body)
                crc = _crc(head + body)
            self._emit(b"".join((head[:22], struct.pack("<I", crc), head[26:], body)))
        if not self._streams or not all(stream.ended for stream in self._streams.values()):
            raise self._broken("it is cut short")

    def _stream(self, serial: int, body: bytes) -> _Stream:
        stream = self._streams.get(serial)
        if stream is None:
            told = next((c for begins, c in _NOTHING_TOLD.items() if body.startswith(begins)), None)
            if told is None or len(self._streams) >= _MOST_STREAMS:
                raise self._broken("its sound is of an unknown kind")
            stream = self._streams[serial] = _Stream(told)
        return stream


def _without_comments(stream: _Stream, lacing: bytes, body: bytes) -> bytes:
    """The page's body with what belongs to the comment packet (the second) blanked."""
    parts, at = [], 0
    for length in lacing:
        part = body[at : at + length]
        at += length
        if stream.packet == 1:
            told = stream.comments[stream.length : stream.length + length]
            part = told + bytes(length - len(told))
        parts.append(part)
        stream.length += length
        if length < 255:
            stream.packet += 1
            stream.length = 0
    return b"".join(parts)


def _crc(page: bytes) -> int:
    """Ogg's sum is the one of zlib with the bits of each byte and of the result mirrored, begun at zero."""
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_MIRRORED))
