"""Whether bytes are a whole picture of the size that is stated: by structure, without decoding it."""

from dataclasses import dataclass

from comfy_api_service.media.clean import cleaner_for
from comfy_api_service.media.errors import MediaError
from comfy_api_service.media.sniff import Kind, sniff


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture that was found whole; `size` is width and height in pixels."""

    kind: Kind
    size: tuple[int, int]


def verify_picture(data: bytes, size: tuple[int, int] | None = None) -> Picture:
    """The picture's kind and measures; raises `MediaError` if it is no whole picture, or not of this `size`.

    Costs about as much as a checksum of the bytes.
    """
    kind = sniff(data)
    if not kind.is_picture:
        raise MediaError("This is not a picture of a known kind.")
    cleaner = cleaner_for(kind, limit=len(data))
    cleaner.feed(data)
    cleaner.finish()
    if cleaner.size is None:
        raise MediaError("This picture has no size.")
    if size is not None and cleaner.size != size:
        raise MediaError("This picture is not of the size that was stated.")
    return Picture(kind.moving(cleaner.animated), cleaner.size)
