"""What a file is, by its first bytes; never by its name or by what somebody says of it.

What a browser might run (HTML, SVG, XML) is a plain `file`, so that it is only ever downloaded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HEAD: Final = 4096
"""Bytes that `sniff` looks at; fewer only if the file is shorter."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`kind` is image, animation, video, audio, text or file; `extension` has no dot."""

    kind: str
    media_type: str
    extension: str

    @property
    def is_picture(self) -> bool:
        return self.kind in {"image", "animation"}

    def moving(self, animated: bool = True) -> "Kind":
        """The same picture, known to be animated or not; other kinds stay what they are."""
        if not self.is_picture:
            return self
        return Kind("animation" if animated else "image", self.media_type, self.extension)


PNG: Final = Kind("image", "image/png", "png")
JPEG: Final = Kind("image", "image/jpeg", "jpg")
WEBP: Final = Kind("image", "image/webp", "webp")
GIF: Final = Kind("image", "image/gif", "gif")
MP4: Final = Kind("video", "video/mp4", "mp4")
MOV: Final = Kind("video", "video/quicktime", "mov")
M4A: Final = Kind("audio", "audio/mp4", "m4a")
WEBM: Final = Kind("video", "video/webm", "webm")
MKV: Final = Kind("video", "video/x-matroska", "mkv")
FLAC: Final = Kind("audio", "audio/flac", "flac")
MP3: Final = Kind("audio", "audio/mpeg", "mp3")
WAV: Final = Kind("audio", "audio/wav", "wav")
OGG: Final = Kind("audio", "audio/ogg", "ogg")
OPUS: Final = Kind("audio", "audio/ogg", "opus")
TEXT: Final = Kind("text", "text/plain; charset=utf-8", "txt")
FILE: Final = Kind("file", "application/octet-stream", "bin")

_MP4_BRANDS: Final = frozenset(
    {
        b"isom",
        b"mp41",
        b"mp42",
        b"mp71",
        b"avc1",
        b"av01",
        b"dash",
        b"MSNV",
        b"M4V ",
        b"M4VH",
        b"M4VP",
        b"f4v ",
    }
)
_ISO_BRAND: Final = re.compile(rb"iso[2-9a-z]|3g[p2][0-9a-z]")
_UNTEXTUAL: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_MARKUP: Final = re.compile(rb"<(?:!doctype|\?xml|html|head|body|svg|script|iframe)", re.IGNORECASE)


_NAMED: Final = {
    **dict.fromkeys(("png", "apng", "jpg", "jpeg", "webp", "gif"), frozenset({"image", "animation"})),
    **dict.fromkeys(("mp4", "mov", "webm", "mkv"), frozenset({"video", "audio"})),
    **dict.fromkeys(("flac", "mp3", "wav", "opus", "m4a"), frozenset({"audio"})),
}


def belies(name: str, kind: str) -> bool:
    """True if a file with this name cannot be of this kind: a page named `.png`. Most names promise nothing."""
    wanted = _NAMED.get(name.rpartition(".")[2].lower())
    return wanted is not None and kind not in wanted


def sniff(head: bytes) -> Kind:
    """The kind of the file that begins with `head` (its first `HEAD` bytes).

    A PNG, WebP or GIF counts as an animation if its head already says so; its cleaner knows for sure.
    """
    head = head[:HEAD]
    for begins, decide in _BY_BEGINNING:
        if head.startswith(begins):
            return decide(head)
    if head[4:8] == b"ftyp":
        return _ftyp(head)
    if _mp3_frame(head):
        return MP3
    return TEXT if _is_text(head) else FILE


def _png(head: bytes) -> Kind:
    at = 8
    while (name := head[at + 4 : at + 8]) and name != b"IDAT":
        if name == b"acTL":
            return PNG.moving()
        at += 12 + int.from_bytes(head[at : at + 4])
    return PNG


def _riff(head: bytes) -> Kind:
    if head[8:12] == b"WAVE":
        return WAV
    if head[8:12] != b"WEBP":
        return FILE
    animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 0x02
    return WEBP.moving() if animated else WEBP


def _gif(head: bytes) -> Kind:
    return GIF.moving() if b"\x21\xff\x0bNETSCAPE2.0" in head else GIF


def _ebml(head: bytes) -> Kind:
    if b"\x42\x82\x84webm" in head[:64]:
        return WEBM
    return MKV if b"\x42\x82\x88matroska" in head[:64] else FILE


def _ogg(head: bytes) -> Kind:
    body = head[27 + head[26] :] if len(head) > 26 else b""
    if body.startswith(b"OpusHead"):
        return OPUS
    return OGG if body.startswith(b"\x01vorbis") else FILE


def _ftyp(head: bytes) -> Kind:
    brand = head[8:12]
    if brand == b"qt  ":
        return MOV
    if brand in {b"M4A ", b"M4B "}:
        return M4A
    return MP4 if brand in _MP4_BRANDS or _ISO_BRAND.fullmatch(brand) else FILE


def _mp3_frame(head: bytes) -> bool:
    """True if this is the header of an MPEG audio frame, layer III."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return False
    rate, frequency = head[2] >> 4, head[2] >> 2 & 3
    return rate not in {0, 15} and frequency != 3 and head[3] & 3 != 2


def _is_text(head: bytes) -> bool:
    if not head or _UNTEXTUAL.search(head) or head.lstrip(b"\xef\xbb\xbf \t\r\n\f").startswith(b"<"):
        return False
    if _MARKUP.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The head may end within a character.
        return len(head) == HEAD and error.start >= HEAD - 3 and error.reason == "unexpected end of data"
    return True


_BY_BEGINNING: Final[tuple[tuple[bytes, Callable[[bytes], Kind]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", lambda _: JPEG),
    (b"RIFF", _riff),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"\x1aE\xdf\xa3", _ebml),
    (b"fLaC", lambda _: FLAC),
    (b"OggS", _ogg),
    (b"ID3", lambda _: MP3),
)
