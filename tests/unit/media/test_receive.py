"""Files that callers bring: every one of `tests/data/files.py`."""

import hashlib
import io
import resource

import pytest
from PIL import Image, ImageChops, ImageOps
from tests.data.files import FILES, INVALID, OTHER, File, turned
from tests.support.pictures import encoded, picture

from comfy_api_service.domain.upload import MAX_PIXELS
from comfy_api_service.media.errors import MediaError, NotTaken
from comfy_api_service.media.receive import Received, receive


def received(data: bytes) -> tuple[Received, bytes]:
    kept = io.BytesIO()
    told = receive(io.BytesIO(data), kept, max_pixels=MAX_PIXELS)
    return told, kept.getvalue()


@pytest.mark.parametrize(
    "file", [one for one in FILES if one.refused], ids=lambda one: f"{one.kind}: {one.name}"
)
def test_what_is_refused(file: File) -> None:
    with pytest.raises(MediaError) as raised:
        received(file.data)
    assert (OTHER if isinstance(raised.value, NotTaken) else INVALID) == file.refused


@pytest.mark.parametrize("file", [one for one in FILES if not one.refused], ids=lambda one: one.name)
def test_what_is_taken_shows_what_it_showed_and_tells_nothing_else(file: File) -> None:
    told, kept = received(file.data)
    assert (told.width, told.height) == (file.size or (32, 16))
    assert (told.bytes, told.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())
    for secret in (b"the description", b"the artist", b"alert", b"hello", b"ftyp", b"prVt"):
        assert secret not in kept
    with Image.open(io.BytesIO(kept)) as now, Image.open(io.BytesIO(file.data)) as before:
        assert now.format == before.format
        shown = [ImageOps.exif_transpose(one).convert("RGBA") for one in (now, before)]
    assert shown[0].size == (told.width, told.height)
    assert ImageChops.difference(*shown).getbbox(alpha_only=False) is None
    again, same = received(kept)
    assert (again, same) == (told, kept)


def test_there_are_enough_of_them() -> None:
    refused = [one for one in FILES if one.refused]
    assert len(refused) >= 30
    assert len({one.kind for one in refused}) >= 6
    assert len(FILES) - len(refused) >= 15
    assert len({(one.kind, one.name) for one in FILES}) == len(FILES)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_orientation_is_seen_as_before(form: str, orientation: int) -> None:
    told, kept = received(turned(form, orientation))
    assert (told.width, told.height) == ((16, 32) if orientation > 4 else (32, 16))
    with Image.open(io.BytesIO(kept)) as image, Image.open(io.BytesIO(encoded(picture(), form))) as plain:
        if form != "JPEG":
            assert "exif" not in image.info
        exif = Image.Exif()
        exif[0x0112] = orientation
        told_to_turn = plain.convert("RGB")
        told_to_turn.info["exif"] = exif.tobytes()
        upright = ImageOps.exif_transpose(told_to_turn)
        assert ImageChops.difference(ImageOps.exif_transpose(image).convert("RGB"), upright).getbbox() is None


def test_refusing_bombs_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file in FILES:
        if file.kind == "bomb":
            with pytest.raises(MediaError):
                received(file.data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # in KiB
