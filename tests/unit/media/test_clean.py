"""What is cut, what stays, and that nothing else ever happens."""

import io
import json
import random
import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngImageFile
from tests.unit.media import samples
from tests.unit.media.samples import ALL, CANARY, PICTURES, WORD

from comfy_api_service.media import sniff
from comfy_api_service.media.clean import Cleaner, clean, cleaner_for
from comfy_api_service.media.errors import MediaError, TooLarge


def frames(data: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(image)]


def fed(data: bytes, sizes: Iterator[int]) -> tuple[bytes, Cleaner]:
    cleaner = cleaner_for(sniff.sniff(data), limit=len(data))
    parts, at = [], 0
    while at < len(data):
        step = next(sizes)
        parts.append(cleaner.feed(data[at : at + step]))
        at += step
    parts.append(cleaner.finish())
    return b"".join(parts), cleaner


@pytest.mark.parametrize("name", ALL)
def test_the_canary_is_gone_from_every_place(name: str) -> None:
    data = ALL[name]()
    assert WORD in data
    cleaned = clean(data)
    assert WORD not in cleaned
    assert CANARY.encode("utf-16-le") not in cleaned


@pytest.mark.parametrize("name", PICTURES)
def test_the_pixels_are_identical(name: str) -> None:
    data = PICTURES[name]()
    assert frames(clean(data)) == frames(data)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_the_colour_profile_stays(name: str) -> None:
    with Image.open(io.BytesIO(clean(PICTURES[name]()))) as image:
        assert image.info["icc_profile"] == samples.icc()
        assert not image.getexif()


@pytest.mark.parametrize("name", ["png", "webp", "apng", "animated webp", "animated gif"])
def test_timing_and_resolution_stay(name: str) -> None:
    data = PICTURES[name]()
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(clean(data))) as after:
        for key in ("duration", "loop", "dpi", "transparency"):
            assert before.info.get(key) == after.info.get(key)


@pytest.mark.parametrize("name", ALL)
def test_the_size_of_the_chunks_does_not_matter_and_cleaning_twice_changes_nothing(name: str) -> None:
    data = ALL[name]()
    whole = clean(data)
    rng = random.Random(7)
    assert fed(data, iter(lambda: 1, 0))[0] == whole
    assert fed(data, iter(lambda: rng.randrange(1, 90), 0))[0] == whole
    assert clean(whole) == whole


@pytest.mark.parametrize(
    ("name", "size", "animated"),
    [
        ("png", (37, 23), False),
        ("apng", (37, 23), True),
        ("jpeg", (64, 48), False),
        ("webp", (37, 23), False),
        ("lossless webp", (37, 23), False),
        ("animated webp", (37, 23), True),
        ("gif", (37, 23), False),
        ("animated gif", (37, 23), True),
        ("mp4", (640, 480), False),
        ("webm", (640, 480), False),
        ("flac", None, False),
    ],
)
def test_size_and_animation_are_learnt_on_the_way(
    name: str, size: tuple[int, int] | None, animated: bool
) -> None:
    _, cleaner = fed(ALL[name](), iter(lambda: 50, 0))
    assert (cleaner.size, cleaner.animated, cleaner.known) == (size, animated, True)


@pytest.mark.parametrize("name", [n for n in ALL if n not in {"flac", "mp3", "live webm"}])
def test_a_file_that_is_cut_short_is_never_taken_for_whole(name: str) -> None:
    data = ALL[name]()
    kind = sniff.sniff(data)
    cleaner = cleaner_for(kind, limit=len(data))
    complete = None
    for at in range(len(data)):  # the first byte after which the file is whole
        cleaner.feed(data[at : at + 1])
        if getattr(cleaner, "_done", False):
            complete = at + 1
            break
    end = complete or len(data)
    boundaries = {"mp4": 2}.get(name, 0)
    """Whole files with less behind their content: before the last boxes, which tell nothing."""
    accepted = 0
    for length in range(20, end):
        cleaner = cleaner_for(kind, limit=len(data))
        try:
            cleaner.feed(data[:length])
            cleaner.finish()
        except MediaError:
            continue
        accepted += 1
    assert accepted <= boundaries


@pytest.mark.parametrize("name", ["mp4", "webm", "live webm", "wav", "opus", "vorbis"])
def test_what_is_blanked_in_place_moves_nothing(name: str) -> None:
    data = ALL[name]()
    cleaned = clean(data)
    assert len(cleaned) == len(data)
    kept = {"mp4": bytes(range(100)), "wav": bytes(range(101)), "opus": bytes(range(100))}.get(name, b"")
    kept = kept or {"vorbis": b"\x05vorbis"}.get(name, b"block" * 9)
    assert cleaned.index(kept) == data.index(kept)


def test_what_is_blanked_in_an_mp4_is_free_space_for_every_reader() -> None:
    cleaned = clean(samples.mp4())
    for name in (b"udta", b"meta", b"uuid", b"ilst", b"Xtra"):
        assert name not in cleaned
    assert cleaned.count(b"free") == 7
    assert clean(samples.mp4(b"qt  ")).count(b"free") == 7


def test_the_thumbnail_in_a_jpeg_header_goes() -> None:
    plain = samples.saved(samples.picture("RGB", (64, 48)), "JPEG")
    head = b"JFIF\0\x01\x01\0\0\x01\0\x01\x02\x02" + WORD
    told = plain[:2] + samples.jpeg_segment(0xE0, head) + plain[20:]
    assert WORD in told
    cleaned = clean(told)
    assert WORD not in cleaned
    assert cleaned[6:20] == head[:12] + b"\0\0"


def test_the_flags_of_a_webp_say_what_is_left() -> None:
    data = samples.webp()
    assert data[20] == 0x20 | 0x10 | 0x08 | 0x04
    assert clean(data)[20] == 0x20 | 0x10
    assert clean(data, embed={"a": "b"})[20] == 0x20 | 0x10 | 0x08
    assert clean(samples.animated_webp())[20] == 0x02
    (stated,) = struct.unpack_from("<I", clean(data), 4)
    assert stated == len(clean(data)) - 8


def test_a_webp_whose_picture_is_shorter_than_it_says_is_refused() -> None:
    data = clean(samples.webp())
    at = data.index(b"VP8 ")
    first_part = int.from_bytes(data[at + 8 : at + 11], "little")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    longer = (first_part & 0x1F) | (length << 5)
    with pytest.raises(MediaError):
        clean(data[: at + 8] + longer.to_bytes(3, "little") + data[at + 11 :])


def test_tags_of_a_webm_become_void_elements_of_the_same_length() -> None:
    data = samples.webm()
    cleaned = clean(data)
    at = data.index(b"\x12\x54\xc3\x67")
    assert cleaned[at : at + 2] == b"\xec\x01"
    length = int.from_bytes(data[at + 4 : at + 8]) & 0x0FFFFFFF
    assert int.from_bytes(cleaned[at + 2 : at + 9]) == 8 + length - 9
    assert not any(cleaned[at + 9 : at + 8 + length])
    empty = data.index(b"\x12\x54\xc3\x67\x80")
    assert cleaned[empty : empty + 5] == b"\xec\x83\0\0\0"


@pytest.mark.parametrize("kind", ["opus", "vorbis"])
def test_pages_of_an_ogg_file_have_true_sums(kind: str) -> None:
    cleaned = clean(samples.ogg(kind))
    pages = cleaned.split(b"OggS")[1:]
    assert len(pages) == 4
    for page in pages:
        whole = b"OggS" + page
        (stated,) = struct.unpack_from("<I", whole, 22)
        assert samples.ogg_crc(whole[:22] + bytes(4) + whole[26:]) == stated


def test_a_damaged_byte_of_an_ogg_file_is_noticed() -> None:
    data = samples.ogg()
    for at in (38, len(data) - 10):
        with pytest.raises(MediaError):
            clean(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])


def test_what_is_blanked_in_a_wav_is_junk_for_every_reader() -> None:
    cleaned = clean(samples.wav())
    assert (cleaned.count(b"JUNK"), b"LIST" in cleaned, b"id3 " in cleaned) == (2, False, False)


def test_a_flac_ends_its_header_with_the_last_block_that_stays() -> None:
    cleaned = clean(samples.flac())
    assert cleaned[4:8] == b"\0\0\0\x22"
    assert cleaned[42:46] == b"\x83\0\0\x24"
    assert cleaned[82:84] == b"\xff\xf8"


def test_an_mp3_keeps_its_frames_alone() -> None:
    assert clean(samples.mp3()) == samples.mp3(tagged=False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_its_orientation_and_no_more(orientation: int) -> None:
    cleaned = clean(samples.jpeg(orientation))
    with Image.open(io.BytesIO(cleaned)) as image:
        assert dict(image.getexif()) == ({} if orientation == 1 else {0x0112: orientation})


TOLD = {"parameters": "ein Haus, 「家」 🏠\nSteps: 20, Seed: 7", "request": json.dumps({"seed": 7})}


def test_told_parameters_can_be_read_in_a_png() -> None:
    with Image.open(io.BytesIO(clean(samples.png(), embed=TOLD))) as image:
        assert isinstance(image, PngImageFile)
        assert image.text == TOLD


@pytest.mark.parametrize(
    "name",
    [
        "jpeg",
        "progressive jpeg",
        "webp",
        "lossless webp",
        "animated webp",
        "plain webp",
        "plain lossless webp",
    ],
)
def test_told_parameters_can_be_read_in_jpeg_and_webp(name: str) -> None:
    if name.startswith("plain"):  # without an extended header, which must then be made
        data = samples.saved(samples.picture("RGB"), "WEBP", lossless="lossless" in name)
        assert b"VP8X" not in data
    else:
        data = PICTURES[name]()
    told = clean(data, embed=TOLD)
    assert frames(told) == frames(data)
    assert WORD not in told
    with Image.open(io.BytesIO(told)) as image:
        block = image.getexif()
        assert json.loads(block[0x010E]) == TOLD
        comment = block.get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + TOLD["parameters"].encode("utf-16-be")
    assert clean(told) == clean(data) or name.startswith("plain")


def test_what_does_not_fit_into_a_jpeg_is_left_out() -> None:
    told = clean(samples.jpeg(6), embed={"parameters": "x" * 40_000})
    with Image.open(io.BytesIO(told)) as image:
        block = image.getexif()
        assert (0x010E in block, bool(block.get_ifd(0x8769)), block[0x0112]) == (True, False, 6)
    told = clean(samples.jpeg(6), embed={"parameters": "x" * 400_000})
    with Image.open(io.BytesIO(told)) as image:
        assert dict(image.getexif()) == {0x0112: 6}


@pytest.mark.parametrize("keyword", ["", "x" * 80, "家", "a\nb", " a"])
def test_a_keyword_that_a_png_cannot_carry_is_refused(keyword: str) -> None:
    with pytest.raises(MediaError):
        clean(samples.png(), embed={keyword: "text"})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(samples.png()[:33] + samples.png_chunk(b"IEND", b""), id="no picture data"),
        pytest.param(
            samples.after_header(samples.png(), samples.png_chunk(b"XXXX", b"")), id="unknown critical"
        ),
        pytest.param(samples.after_header(samples.png(), b"\xff\xff\xff\xffIDAT"), id="absurd length"),
        pytest.param(samples.after_header(samples.png(), b"\0\0\0\0ID4T\0\0\0\0"), id="absurd name"),
        pytest.param(
            samples.after_header(samples.png(), samples.png_chunk(b"acTL", bytes(7))), id="odd animation"
        ),
        pytest.param(
            samples.after_header(samples.png(), samples.png_chunk(b"acTL", b"\0\0\0\x03\0\0\0\0")),
            id="frames absent",
        ),
        pytest.param(
            samples.after_header(samples.png(), samples.png_chunk(b"iCCP", bytes(9 << 20))), id="huge profile"
        ),
        pytest.param(
            samples.after_header(samples.png(), samples.png_chunk(b"tEXt", b"") * 200_000), id="tiny chunks"
        ),
        pytest.param(b"\xff\xd8" + samples.jpeg_segment(0xFE, b"") * 200_000, id="tiny segments"),
        pytest.param(b"\xff\xd8" + b"\xff" * 1_000_000, id="padding without end"),
        pytest.param(b"\xff\xd8\xff\xd9", id="empty jpeg"),
        pytest.param(b"\xff\xd8\xff\xda\0\x02\xff\xd9", id="scan without header"),
        pytest.param(b"GIF89a\x01\0\x01\0\0\0\0;", id="empty gif"),
        pytest.param(b"RIFF\x04\0\0\0WEBP", id="empty webp"),
        pytest.param(samples.box(b"ftyp", b"isom") + samples.box(b"moov"), id="mp4 without data"),
        pytest.param(samples.webm()[:-1] + b"", id="cut webm"),
    ],
)
def test_what_is_not_sound_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        clean(data)


def test_a_damaged_byte_of_a_png_is_noticed_wherever_it_is_kept() -> None:
    data = clean(samples.png())
    for at in range(8, len(data)):
        damaged = data[:at] + bytes((data[at] ^ 0x01,)) + data[at + 1 :]
        try:
            cleaned = clean(damaged)
        except MediaError:
            continue
        # The name of a chunk that may go was hit: then it went.
        assert frames(cleaned)
        assert len(cleaned) < len(data)


def test_an_endless_idat_is_passed_on_without_being_held() -> None:
    head = samples.png()[:33]
    cleaner = cleaner_for(sniff.PNG)
    cleaner.feed(head)
    cleaner.feed(struct.pack(">I", 1 << 30) + b"IDAT")
    piece = bytes(1 << 16)
    for _ in range(100):
        assert len(cleaner.feed(piece)) == len(piece)


def test_a_webp_larger_than_the_limit_is_refused_by_its_header() -> None:
    cleaner = cleaner_for(sniff.WEBP, limit=1000)
    with pytest.raises(TooLarge):
        cleaner.feed(b"RIFF" + struct.pack("<I", 2000) + b"WEBP")
    with pytest.raises(TooLarge):
        cleaner.feed(b"more")
    with pytest.raises(TooLarge):
        cleaner.finish()


def test_frames_of_an_animated_webp_hide_nothing() -> None:
    data = clean(samples.animated_webp())
    at = data.index(b"ANMF")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    hidden = b"EXIF" + struct.pack("<I", len(WORD)) + WORD
    frame = data[at + 8 : at + 8 + length] + hidden
    told = data[:at] + b"ANMF" + struct.pack("<I", len(frame)) + frame + data[at + 8 + length :]
    told = b"RIFF" + struct.pack("<I", len(told) - 8) + told[8:]
    assert WORD in told
    assert clean(told) == data


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_is_done_to_a_file_it_is_refused_or_cleaned(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ALL)))
    file = bytearray(ALL[name]())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "size"])):
            case "flip":
                file[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del file[max(at, 1) :]
            case "insert":
                file[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case "repeat":
                file[at:at] = file[at : at + 64]
            case _:
                file[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"]))
    hostile = bytes(file)
    kind = sniff.sniff(ALL[name]())  # the cleaner of the original kind, whatever the bytes now look like
    cleaner = cleaner_for(kind, embed=TOLD if data.draw(st.booleans()) else None, limit=1 << 20)
    step = data.draw(st.sampled_from([1, 7, 100, 1 << 20]))
    try:
        parts = [cleaner.feed(hostile[at : at + step]) for at in range(0, len(hostile), step)]
        cleaned = b"".join([*parts, cleaner.finish()])
    except MediaError:
        return
    assert len(cleaned) <= len(hostile) + 3000
    again = cleaner_for(kind, limit=1 << 20)
    assert again.feed(cleaned) + again.finish()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(ALL)))
def test_noise_behind_any_beginning_is_refused_or_cleaned(noise: bytes, name: str) -> None:
    for keep in (4, 12, 40):
        cleaner = cleaner_for(sniff.sniff(ALL[name]()), limit=1 << 20)
        try:
            cleaner.feed(ALL[name]()[:keep] + noise)
            cleaner.finish()
        except MediaError:
            continue


def test_a_bomb_of_text_is_not_unpacked() -> None:
    bomb = b"x\0\0" + zlib.compress(bytes(50 << 20))
    assert clean(samples.after_header(samples.png(), samples.png_chunk(b"zTXt", bomb))) == clean(
        samples.png()
    )
