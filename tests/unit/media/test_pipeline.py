from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.media import samples
from tests.unit.media.samples import ALL, PICTURES, WORD

from comfy_api_service.domain.job import OutputFormat, OutputOptions
from comfy_api_service.media import pipeline
from comfy_api_service.media.check import verify_picture
from comfy_api_service.media.clean import clean
from comfy_api_service.media.errors import MediaError, TooLarge
from comfy_api_service.media.pipeline import Intake, Prepared

AS_IT_IS = OutputOptions()
LIMIT = 1 << 20


class Source:
    """A stream that counts what was read of it."""

    def __init__(self, data: bytes, step: int = 64) -> None:
        self._data, self._step = data, step
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), self._step):
            piece = self._data[at : at + self._step]
            self.read += len(piece)
            yield piece


@pytest.fixture
def intake() -> Iterator[Intake]:
    with ThreadPoolExecutor(1) as pool:
        yield Intake(pool)


async def taken(
    intake: Intake, data: bytes, options: OutputOptions = AS_IT_IS, limit: int = LIMIT
) -> tuple[Prepared, bytes]:
    prepared = await intake.intake(aiter(Source(data)), options=options, embed=None, limit_bytes=limit)
    made = b"".join([piece async for piece in prepared])
    prepared.finish_check()
    return prepared, made


@pytest.mark.parametrize("name", ALL)
async def test_a_stream_comes_out_cleaned(name: str, intake: Intake) -> None:
    prepared, made = await taken(intake, ALL[name]())
    assert made == clean(ALL[name]())
    assert (prepared.kind == "animation") == (name in {"apng", "animated webp", "animated gif"})
    assert prepared.media_type.partition("/")[0] in {"image", "video", "audio"}


@pytest.mark.parametrize("name", PICTURES)
async def test_kind_and_size_of_a_picture_are_known_before_its_bytes_are_asked_for(
    name: str, intake: Intake
) -> None:
    prepared = await intake.intake(
        aiter(Source(PICTURES[name]())), options=AS_IT_IS, embed=None, limit_bytes=LIMIT
    )
    assert (prepared.width, prepared.height) == verify_picture(PICTURES[name]()).size
    with pytest.raises(MediaError):
        prepared.finish_check()


async def test_an_animation_that_says_so_behind_a_long_text_is_known_as_one(intake: Intake) -> None:
    prepared, _ = await taken(intake, samples.apng())
    assert (prepared.kind, prepared.media_type, prepared.extension) == ("animation", "image/png", "png")


async def test_a_video_knows_its_size_at_the_end(intake: Intake) -> None:
    prepared, _ = await taken(intake, samples.mp4())
    assert (prepared.kind, prepared.width, prepared.height) == ("video", 640, 480)


async def test_a_large_picture_is_not_gathered(intake: Intake) -> None:
    data = samples.saved(samples.picture("RGB", (400, 400)), "PNG", compress_level=0)
    source = Source(data, 1024)
    prepared = await intake.intake(aiter(source), options=AS_IT_IS, embed=None, limit_bytes=LIMIT)
    assert source.read < 8192
    ahead = 0
    written = 0
    async for piece in prepared:
        written += len(piece)
        ahead = max(ahead, source.read - written)
    assert ahead < 8192


@pytest.mark.parametrize("name", [n for n in ALL if n not in {"flac", "mp3", "live webm"}])
async def test_a_cut_file_never_comes_to_its_end(name: str, intake: Intake) -> None:
    data = clean(ALL[name]())
    cut = -200 if name == "mp4" else -2
    with pytest.raises(MediaError):
        await taken(intake, data[:cut])


async def test_an_empty_output_is_an_error(intake: Intake) -> None:
    with pytest.raises(MediaError):
        await taken(intake, b"")


async def test_the_limit_holds_before_and_within_the_stream(intake: Intake) -> None:
    data = samples.mp3() * 20
    with pytest.raises(TooLarge):
        await taken(intake, data, limit=1000)
    prepared = await intake.intake(aiter(Source(data)), options=AS_IT_IS, embed=None, limit_bytes=5000)
    with pytest.raises(TooLarge):
        [_ async for _ in prepared]
    with pytest.raises(MediaError):
        prepared.finish_check()
    await taken(intake, data, limit=len(data))


async def test_text_and_files_pass_as_they_are(intake: Intake) -> None:
    for data, kind in ((b"a short text", "text"), (b"PK\x03\x04\0\0", "file"), (b"<svg/>", "file")):
        prepared, made = await taken(intake, data)
        assert (prepared.kind, made, prepared.width) == (kind, data, None)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
async def test_a_picture_is_converted_if_that_is_asked(name: str, intake: Intake) -> None:
    for wanted in (OutputFormat.PNG, OutputFormat.JPEG, OutputFormat.WEBP):
        prepared, made = await taken(intake, PICTURES[name](), OutputOptions(wanted))
        assert prepared.media_type == f"image/{wanted}"
        picture = verify_picture(made, verify_picture(PICTURES[name]()).size)
        assert (prepared.width, prepared.height) == picture.size
        assert WORD not in made


@pytest.mark.parametrize("name", ["apng", "animated webp", "animated gif", "mp4", "flac"])
async def test_what_is_no_single_picture_keeps_its_format(name: str, intake: Intake) -> None:
    _, made = await taken(intake, ALL[name](), OutputOptions(OutputFormat.JPEG))
    assert made == clean(ALL[name]())


@pytest.mark.parametrize("wanted", OutputFormat)
async def test_what_shall_be_told_is_told_in_every_format(wanted: OutputFormat, intake: Intake) -> None:
    prepared = await intake.intake(
        aiter(Source(samples.png())),
        options=OutputOptions(wanted),
        embed={"parameters": "haus"},
        limit_bytes=LIMIT,
    )
    made = b"".join([piece async for piece in prepared])
    assert (b"haus" if prepared.extension == "png" else "haus".encode("utf-16-be")) in made


async def test_a_fault_of_the_source_passes_through(intake: Intake) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield samples.saved(samples.picture("RGB", (90, 90)), "PNG", compress_level=0)[:-20]
        raise ConnectionResetError

    prepared = await intake.intake(failing(), options=AS_IT_IS, embed=None, limit_bytes=LIMIT)
    with pytest.raises(ConnectionResetError):
        [_ async for _ in prepared]
    with pytest.raises(MediaError):
        prepared.finish_check()


async def test_a_still_gif_without_an_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its end nothing tells whether it moves, so it is held; not for ever."""
    monkeypatch.setattr(pipeline, "LIMIT", 1 << 20)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b"GIF89a\x40\0\x40\0\0\0\0,\0\0\0\0\x40\0\x40\0\0\x08"
        while True:
            read += 1 << 16
            yield (b"\xff" * 256) * 256

    with ThreadPoolExecutor(1) as threads, pytest.raises(TooLarge):
        await Intake(threads).intake(endless(), options=OutputOptions(), embed=None, limit_bytes=8 << 20)
    assert read < 2 << 20
