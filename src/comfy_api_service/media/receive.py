"""A picture that a caller brings: recognised by content, cleaned, and decoded once to prove that it is one.

| what comes | what becomes of it |
|---|---|
| PNG, JPEG, WebP of one frame | stored without metadata, its picture data as they are |
| the same, told by Exif to be turned, where cleaning cuts Exif (PNG, WebP) | turned, and encoded anew without loss |
| the same with something else behind its end | what follows is cut; an archive, document, page or program: refused |
| animations, other formats, damaged files | refused |

Everything blocks and runs in a thread. Memory holds the decoded picture (at most 4 bytes a pixel; twice if it is
turned), a WebP file whole, and else pieces of a file.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from typing import BinaryIO, Final

from PIL import Image

from comfy_api_service.media import sniff
from comfy_api_service.media.clean import Cleaner
from comfy_api_service.media.errors import MediaError, NotTaken, TooLarge
from comfy_api_service.media.exif import UPRIGHT
from comfy_api_service.media.jpeg import JpegCleaner
from comfy_api_service.media.png import PngCleaner
from comfy_api_service.media.sieve import Sieve
from comfy_api_service.media.sniff import HEAD, Kind
from comfy_api_service.media.webp import WebpCleaner

PIECE: Final = 1 << 16
"""Bytes that are read at once."""
_PILLOW: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OVERLAP: Final = 16
_FOREIGN: Final = re.compile(
    rb"PK\x03\x04|PK\x05\x06|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|%PDF-|<\?php|\x7fELF|"
    rb"<(?:!doctype|html|head|body|script|svg|iframe)[\s>/]",
    re.IGNORECASE,
)
"""What must not follow a picture's end: beginnings of files that something else would take this one for."""
_PROGRAM: Final = (b"MZ", b"#!")


@dataclass(frozen=True, slots=True)
class Received:
    """The file as it is kept; `sha256` in lowercase hex; width and height in pixels, upright."""

    kind: Kind
    width: int
    height: int
    bytes: int
    sha256: str


def receive(raw: BinaryIO, kept: BinaryIO, *, max_pixels: int) -> Received:
    """Read the file `raw` from its begin, write what is kept into the empty file `kept`.

    Raises `NotTaken` for what is not PNG, JPEG or WebP, `TooLarge` for more than `max_pixels`, else `MediaError`.
    """
    raw.seek(0)
    head = raw.read(HEAD)
    kind = sniff.sniff(head)
    if not head:
        raise MediaError("The file is empty.")
    if kind.media_type not in _PILLOW:
        raise NotTaken("The file is not a PNG, JPEG or WebP picture.")
    cleaner = _cleaner(kind, raw)
    tail = b""
    chunk = head
    while chunk:
        kept.write(cleaner.feed(chunk))
        _look(cleaner, max_pixels)
        tail = _seen(tail, cleaner.surplus)
        chunk = raw.read(PIECE)
    kept.write(cleaner.finish())
    _look(cleaner, max_pixels)
    if cleaner.size is None:
        raise MediaError("The picture has no size.")
    width, height = cleaner.size
    turned = cleaner.orientation != UPRIGHT and kind.media_type != sniff.JPEG.media_type
    _prove(kept, kind, (width, height), cleaner.orientation if turned else UPRIGHT)
    if cleaner.orientation in _SIDEWAYS:
        width, height = height, width
    size, sha256 = _digest(kept)
    return Received(kind.moving(False), width, height, size, sha256)


def _cleaner(kind: Kind, raw: BinaryIO) -> Sieve:
    if kind.media_type == sniff.PNG.media_type:
        return PngCleaner()
    if kind.media_type == sniff.JPEG.media_type:
        return JpegCleaner()
    at = raw.tell()
    limit = raw.seek(0, io.SEEK_END)
    raw.seek(at)
    return WebpCleaner(limit=limit)


def _look(cleaner: Cleaner, max_pixels: int) -> None:
    """As soon as it is known: before anything is decoded."""
    if cleaner.animated:
        raise MediaError("The picture is an animation; one frame is taken.")
    if cleaner.size is not None and cleaner.size[0] * cleaner.size[1] > max_pixels:
        raise TooLarge(f"The picture has more than {max_pixels // 1_000_000} megapixels.")


def _seen(before: bytes, surplus: bytes) -> bytes:
    """The end of what followed the picture until now. Raises `MediaError` for another file in it."""
    if not surplus:
        return before
    if _FOREIGN.search(before + surplus) or (not before and surplus.startswith(_PROGRAM)):
        raise MediaError("Another file follows the picture's end.")
    return (before + surplus)[-_OVERLAP:]


def _prove(kept: BinaryIO, kind: Kind, size: tuple[int, int], orientation: int) -> None:
    """Decode the cleaned file once; turn it, and write it anew, if cleaning has cut the way it is to be seen.

    A JPEG is decoded at an eighth of its size: all of its data are read, and little memory is needed.
    """
    kept.seek(0)
    try:
        with Image.open(kept, formats=[_PILLOW[kind.media_type]]) as image:
            if image.size != size or getattr(image, "n_frames", 1) != 1:
                raise MediaError("The picture is not what it states.")
            if image.format == "JPEG":
                image.draft(None, (max(size[0] // 8, 1), max(size[1] // 8, 1)))
            image.load()
            upright = None if orientation == UPRIGHT else image.transpose(_TURNS[orientation])
    except MediaError:
        raise
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise MediaError("The picture cannot be decoded.") from error
    if upright is not None:
        kept.seek(0)
        kept.truncate()
        profile = upright.info.get("icc_profile")
        upright.info = {name: upright.info[name] for name in ("transparency",) if name in upright.info}
        if kind.media_type == sniff.WEBP.media_type:
            upright.save(kept, "WEBP", lossless=True, exact=True, quality=0, method=0, icc_profile=profile)
        else:
            upright.save(kept, "PNG", compress_level=4, icc_profile=profile)


def _digest(file: BinaryIO) -> tuple[int, str]:
    file.flush()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return file.seek(0, io.SEEK_END), digest
