import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from tests.unit.media import samples
from tests.unit.media.samples import PICTURES, WORD

from comfy_api_service.domain.job import OutputFormat, OutputOptions
from comfy_api_service.media.check import verify_picture
from comfy_api_service.media.clean import clean
from comfy_api_service.media.convert import convert, thumbnail
from comfy_api_service.media.errors import CannotConvert, MediaError, TooLarge

FORMATS = [OutputFormat.PNG, OutputFormat.JPEG, OutputFormat.WEBP]
STILL = ["png", "jpeg", "webp", "gif"]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("name", STILL)
async def test_every_picture_becomes_every_format(
    name: str, wanted: OutputFormat, executor: ThreadPoolExecutor
) -> None:
    data = PICTURES[name]()
    made = await convert(data, OutputOptions(wanted, quality=95), executor=executor)
    picture = verify_picture(made, verify_picture(data).size)
    assert picture.kind.media_type == f"image/{wanted}"
    assert WORD not in made


@pytest.mark.parametrize(("name", "wanted"), [("png", "png"), ("jpeg", "jpeg"), ("animated webp", "webp")])
async def test_what_is_in_the_format_already_is_only_cleaned(
    name: str, wanted: str, executor: ThreadPoolExecutor
) -> None:
    data = PICTURES[name]()
    assert await convert(data, OutputOptions(OutputFormat(wanted)), executor=executor) == clean(data)


async def test_a_lossless_format_keeps_each_pixel_and_the_profile(executor: ThreadPoolExecutor) -> None:
    made = await convert(samples.webp(), OutputOptions(OutputFormat.PNG), executor=executor)
    with Image.open(io.BytesIO(made)) as after, Image.open(io.BytesIO(samples.webp())) as before:
        assert after.tobytes() == before.tobytes()
        assert after.info["icc_profile"] == samples.icc()


async def test_transparency_becomes_white_in_a_jpeg(executor: ThreadPoolExecutor) -> None:
    clear = samples.saved(Image.new("RGBA", (16, 16), (255, 0, 0, 0)), "PNG")
    made = await convert(clear, OutputOptions(OutputFormat.JPEG), executor=executor)
    with Image.open(io.BytesIO(made)) as image:
        assert image.getpixel((8, 8)) == (255, 255, 255)


async def test_sixteen_bits_of_grey_are_scaled_not_cut_off(executor: ThreadPoolExecutor) -> None:
    grey = samples.saved(Image.new("I;16", (16, 16), 0x8000), "PNG")
    made = await convert(grey, OutputOptions(OutputFormat.JPEG), executor=executor)
    with Image.open(io.BytesIO(made)) as image:
        assert image.getpixel((8, 8)) == 128


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK"])
async def test_other_modes_convert_too(mode: str, executor: ThreadPoolExecutor) -> None:
    name = "JPEG" if mode == "CMYK" else "PNG"
    wanted = OutputFormat.PNG if mode == "CMYK" else OutputFormat.WEBP
    data = samples.saved(samples.picture("RGB").convert(mode), name)
    made = await convert(data, OutputOptions(wanted), executor=executor)
    assert verify_picture(made).size == (37, 23)


async def test_a_turned_jpeg_is_upright_afterwards(executor: ThreadPoolExecutor) -> None:
    made = await convert(samples.jpeg(6), OutputOptions(OutputFormat.PNG), executor=executor)
    assert verify_picture(made).size == (48, 64)


@pytest.mark.parametrize("name", ["apng", "animated gif", "animated webp"])
async def test_an_animation_is_not_made_into_a_still(name: str, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(CannotConvert):
        await convert(PICTURES[name](), OutputOptions(OutputFormat.JPEG), executor=executor)


async def test_embedding_survives_the_conversion(executor: ThreadPoolExecutor) -> None:
    told = {"parameters": "a house"}
    made = await convert(samples.webp(), OutputOptions(OutputFormat.PNG), executor=executor, embed=told)
    with Image.open(io.BytesIO(made)) as image:
        assert {k: v for k, v in image.info.items() if k in told} == told


async def test_too_many_pixels_are_refused_before_they_are_decoded(executor: ThreadPoolExecutor) -> None:
    header = samples.png_chunk(b"IHDR", (60_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0")
    bomb = b"\x89PNG\r\n\x1a\n" + header + samples.png_chunk(b"IDAT", b"x") + samples.png_chunk(b"IEND", b"")
    with pytest.raises(TooLarge):
        await convert(bomb, OutputOptions(OutputFormat.JPEG), executor=executor)
    with pytest.raises(TooLarge):
        await thumbnail(bomb, 64, executor=executor)
    with pytest.raises(TooLarge):
        await thumbnail(samples.png(), 64, executor=executor, max_pixels=37 * 23 - 1)
    await thumbnail(samples.png(), 64, executor=executor, max_pixels=37 * 23)


async def test_picture_data_that_cannot_be_decoded_are_an_error_of_the_picture(
    executor: ThreadPoolExecutor,
) -> None:
    header = samples.png_chunk(b"IHDR", (60).to_bytes(4) * 2 + b"\x08\x02\0\0\0")
    odd = (
        b"\x89PNG\r\n\x1a\n"
        + header
        + samples.png_chunk(b"IDAT", b"x" * 90)
        + samples.png_chunk(b"IEND", b"")
    )
    verify_picture(odd)
    with pytest.raises(MediaError, match="decoded"):
        await convert(odd, OutputOptions(OutputFormat.JPEG), executor=executor)


@pytest.mark.parametrize("name", PICTURES)
async def test_a_thumbnail_fits_and_keeps_the_shape(name: str, executor: ThreadPoolExecutor) -> None:
    small = verify_picture(await thumbnail(PICTURES[name](), 16, executor=executor))
    width, height = verify_picture(PICTURES[name]()).size
    assert small.kind.media_type == "image/webp"
    assert small.size == (16, round(16 * height / width))


async def test_a_thumbnail_is_never_larger_than_the_picture(executor: ThreadPoolExecutor) -> None:
    assert verify_picture(await thumbnail(samples.png(), 512, executor=executor)).size == (37, 23)


def test_a_picture_of_another_size_than_stated_is_refused() -> None:
    assert verify_picture(samples.png(), (37, 23)).kind.kind == "image"
    assert verify_picture(samples.apng()).kind.kind == "animation"
    with pytest.raises(MediaError):
        verify_picture(samples.png(), (37, 24))
    for data in (samples.mp4(), b"text", b"", samples.png()[:-70]):
        with pytest.raises(MediaError):
            verify_picture(data)
