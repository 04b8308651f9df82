"""Cutting away what a file tells beside its content (prompts, graphs, places), without encoding it anew.

| format | what goes | whole file noticed by |
|---|---|---|
| PNG, APNG | texts, Exif, time, private chunks, what follows the end | sums, the end chunk, count of frames |
| JPEG | Exif (but the orientation), XMP, comments, thumbnails, what follows the end | the end marker |
| WebP | Exif, XMP, unknown chunks, what follows the end | stated lengths |
| GIF | comments, texts, unknown application data, what follows the end | blocks up to the trailer |
| MP4, MOV, M4A | `udta`, `meta`, `uuid`, unknown boxes: blanked in place | stated lengths, `moov` and data |
| WebM, MKV | tags, titles, attachments, chapters: blanked in place | stated lengths, if there are |
| FLAC, MP3 | tags and pictures | not |
| WAV | all chunks but the sound's: blanked in place | stated lengths |
| Ogg (Opus, Vorbis) | comments: blanked in place | sums, the last page's mark |
| text, file | nothing: there is no metadata that is known here | not |

All are linear in time and hold little in memory, but for WebP (whole, since its first bytes state its size).
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from comfy_api_service.media import sniff
from comfy_api_service.media.audio import FlacCleaner, Mp3Cleaner, WavCleaner
from comfy_api_service.media.gif import GifCleaner
from comfy_api_service.media.jpeg import JpegCleaner
from comfy_api_service.media.mp4 import Mp4Cleaner
from comfy_api_service.media.ogg import OggCleaner
from comfy_api_service.media.png import PngCleaner
from comfy_api_service.media.sieve import Passage
from comfy_api_service.media.sniff import Kind
from comfy_api_service.media.webm import WebmCleaner
from comfy_api_service.media.webp import WebpCleaner

LIMIT: Final = 256 << 20
"""Bytes of the largest WebP picture that is held in memory, unless the caller says less."""


class Cleaner(Protocol):
    """One file, fed in order in chunks of any size."""

    size: tuple[int, int] | None
    """Width and height in pixels, once learnt; None for sounds and texts."""
    animated: bool
    known: bool
    """True once `size` and `animated` of a picture are final; always true for other kinds."""

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on now; raises `MediaError` if the file cannot be sound."""
        ...

    def finish(self) -> bytes:
        """The rest; raises `MediaError` if the file is not whole."""
        ...


_PLAIN: Final[Mapping[str, Callable[[], Cleaner]]] = {
    sniff.GIF.extension: GifCleaner,
    sniff.MP4.extension: Mp4Cleaner,
    sniff.MOV.extension: Mp4Cleaner,
    sniff.M4A.extension: Mp4Cleaner,
    sniff.WEBM.extension: WebmCleaner,
    sniff.MKV.extension: WebmCleaner,
    sniff.FLAC.extension: FlacCleaner,
    sniff.MP3.extension: Mp3Cleaner,
    sniff.WAV.extension: WavCleaner,
    sniff.OGG.extension: OggCleaner,
    sniff.OPUS.extension: OggCleaner,
}


def cleaner_for(kind: Kind, *, embed: Mapping[str, str] | None = None, limit: int = LIMIT) -> Cleaner:
    """A new cleaner for a file of this kind; `embed` is written into PNG, JPEG and WebP only."""
    if kind.media_type == sniff.PNG.media_type:
        return PngCleaner(embed)
    if kind.media_type == sniff.JPEG.media_type:
        return JpegCleaner(embed)
    if kind.media_type == sniff.WEBP.media_type:
        return WebpCleaner(embed, limit=limit)
    return _PLAIN.get(kind.extension, Passage)()


def clean(data: bytes, *, embed: Mapping[str, str] | None = None) -> bytes:
    """The whole file, cleaned; raises `MediaError`."""
    cleaner = cleaner_for(sniff.sniff(data), embed=embed, limit=len(data))
    return cleaner.feed(data) + cleaner.finish()
