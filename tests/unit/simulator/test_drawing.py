import dataclasses
import io

import filetype  # type: ignore[import-untyped]
import pytest
from PIL import Image, ImageChops

from comfy_api_service.simulator.drawing import Previewer, details, draw
from comfy_api_service.simulator.media import mp4, webm
from comfy_api_service.simulator.values import Recipe

RECIPE = Recipe(
    prompt="a fox in the snow",
    negative="blurry",
    model="sd_xl_base_1.0.safetensors",
    seed=2**64 - 1,
    index=0,
    width=256,
    height=192,
    steps=20,
    cfg=7.5,
    sampler="euler normal",
    loras=(("add_detail.safetensors", 0.8),),
)


def test_the_same_recipe_gives_the_same_picture() -> None:
    assert draw(RECIPE).tobytes() == draw(dataclasses.replace(RECIPE)).tobytes()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"prompt": "a cat"}, {"index": 1}, {"model": "other"}, {"steps": 21}, {"cfg": 1.0}],
)
def test_any_change_gives_another_picture(change: dict[str, object]) -> None:
    other = dataclasses.replace(RECIPE, **change)  # type: ignore[arg-type]
    assert draw(other).tobytes() != draw(RECIPE).tobytes()


@pytest.mark.parametrize("size", [(8, 8), (64, 512), (512, 64), (128, 128), (640, 360)])
def test_every_size_is_drawn(size: tuple[int, int]) -> None:
    picture = draw(dataclasses.replace(RECIPE, width=size[0], height=size[1], prompt="long " * 900))
    assert (picture.size, picture.mode) == (size, "RGB")


def test_what_was_asked_is_written_on_it() -> None:
    lines = " ".join(details(dataclasses.replace(RECIPE, denoise=0.5, notes=("guidance 3.5",))))
    for part in ("seed 18446744073709551615", "256 x 192", "20 steps", "sd_xl_base_1.0", "add_detail 0.8"):
        assert part in lines
    assert "denoise 0.5" in lines
    assert "guidance 3.5" in lines


def test_the_less_denoising_the_nearer_to_the_input() -> None:
    base = Image.new("RGB", (64, 64), (200, 10, 10))
    small = dataclasses.replace(RECIPE, width=64, height=64, base=base)

    def distance(denoise: float) -> int:
        difference = ImageChops.difference(draw(dataclasses.replace(small, denoise=denoise)), base)
        return sum(difference.convert("L").tobytes())

    assert 0 == distance(0.0) < distance(0.3) < distance(0.9)


def test_what_the_mask_leaves_out_stays() -> None:
    base = Image.new("RGB", (64, 64), (200, 10, 10))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    picture = draw(dataclasses.replace(RECIPE, width=64, height=64, base=base, mask=mask))
    assert picture.getpixel((2, 2)) == (200, 10, 10)
    assert picture.getpixel((62, 2)) != (200, 10, 10)


def test_previews_are_small_jpegs_that_change() -> None:
    previewer = Previewer(dataclasses.replace(RECIPE, width=1024, height=512), 256, 3)
    shown = [previewer.next() for _ in range(3)]
    with Image.open(io.BytesIO(shown[2])) as last:
        assert (last.format, last.size) == ("JPEG", (256, 128))
    assert len(set(shown)) == 3


def test_containers_have_their_structure() -> None:
    film = mp4((64, 48), 8, 8.0, b"{}")
    kinds, at = [], 0
    while at < len(film):
        size = int.from_bytes(film[at : at + 4], "big")
        kinds.append(film[at + 4 : at + 8])
        at += size
    assert kinds == [b"ftyp", b"mdat", b"moov"]
    assert at == len(film)
    clip = webm((64, 48), 8, 8.0, "V_VP9")
    assert b"V_VP9" in clip
    assert (filetype.guess_mime(film), filetype.guess_mime(clip)) == ("video/mp4", "video/webm")
