"""Pictures in place of a model's: a pattern out of the recipe alone, with what was asked written on it.

Blocking and heavy: run it in a thread.
"""

import hashlib
import io
import math
import random
import textwrap
import unicodedata
from functools import lru_cache
from pathlib import PurePath

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .values import Picture, Recipe

PALETTES = (
    ((15, 32, 80), (94, 53, 177), (255, 138, 101), (255, 224, 130)),
    ((2, 48, 71), (33, 158, 188), (142, 202, 230), (255, 183, 3)),
    ((27, 38, 59), (65, 90, 119), (119, 141, 169), (224, 225, 221)),
    ((45, 0, 75), (131, 24, 67), (236, 72, 153), (253, 186, 116)),
    ((6, 40, 30), (20, 108, 84), (101, 178, 120), (245, 230, 150)),
    ((38, 20, 20), (140, 47, 57), (217, 119, 66), (250, 214, 165)),
    ((13, 27, 42), (27, 73, 101), (98, 182, 203), (202, 233, 255)),
    ((36, 0, 70), (90, 24, 154), (157, 78, 221), (224, 170, 255)),
)
SMALLEST_WITH_TEXT = 128
GLOW = [int(150 * max(0.0, 1 - v / 178) ** 1.6) for v in range(256)]
"""Light by distance from the middle of a radial gradient; none at its border."""
SEPARATOR = " \N{MIDDLE DOT} "


def draw(recipe: Recipe) -> Picture:
    """The finished picture, RGB, of the recipe's size."""
    picture = _mixed(recipe, _pattern(recipe, (recipe.width, recipe.height)))
    if min(picture.size) >= SMALLEST_WITH_TEXT:
        _write(picture, recipe)
    return picture


class Previewer:
    """Pictures of the steps in between: out of the noise comes a small version of the result."""

    def __init__(self, recipe: Recipe, size: int, steps: int) -> None:
        scale = min(1.0, size / max(recipe.width, recipe.height))
        small = (max(8, round(recipe.width * scale)), max(8, round(recipe.height * scale)))
        self._end = _mixed(recipe, _pattern(recipe, small))
        noise = Image.effect_noise(small, 90)
        self._noise = Image.merge("RGB", (noise, noise.transpose(Image.Transpose.ROTATE_180), noise))
        self._steps = steps
        self._step = 0

    def next(self) -> bytes:
        """The next step's picture as JPEG."""
        self._step = min(self._step + 1, self._steps)
        mixed = Image.blend(self._noise, self._end, (self._step / self._steps) ** 0.5)
        out = io.BytesIO()
        mixed.save(out, "JPEG", quality=85)
        return out.getvalue()


def _random(recipe: Recipe) -> random.Random:
    parts = (recipe.prompt, recipe.negative, recipe.model, recipe.seed, recipe.index, recipe.loras)
    extra = (recipe.steps, recipe.cfg, recipe.sampler, recipe.notes, recipe.denoise)
    digest = hashlib.blake2b(repr((parts, extra)).encode(errors="replace"), digest_size=16).digest()
    return random.Random(digest)  # noqa: S311 - a pattern, not a secret


def _pattern(recipe: Recipe, size: tuple[int, int]) -> Picture:
    """A sky of one palette, lit by soft discs, over ranges of hills."""
    chance = _random(recipe)
    dark, middle, warm, light = chance.choice(PALETTES)
    canvas = _gradient((dark, middle, warm), chance.uniform(-35, 35), size)
    disc = Image.radial_gradient("L")
    for _ in range(chance.randint(3, 5)):
        radius = round(min(size) * chance.uniform(0.25, 0.7))
        glow = disc.point(GLOW).resize((radius * 2, radius * 2))
        at = (round(chance.random() * size[0]) - radius, round(chance.random() * size[1] * 0.8) - radius)
        canvas.paste(
            chance.choice((middle, warm, light)), (*at, at[0] + radius * 2, at[1] + radius * 2), glow
        )
    _sun(canvas, light, (chance.uniform(0.2, 0.8), chance.uniform(0.16, 0.4)), chance.uniform(0.06, 0.12))
    for layer in range(3):
        _hills(canvas, chance, 0.58 + 0.13 * layer, _mix(middle, dark, 0.25 + 0.3 * layer))
    return canvas


def _gradient(stops: tuple[tuple[int, int, int], ...], angle: float, size: tuple[int, int]) -> Picture:
    ramp = (
        Image.linear_gradient("L")
        .rotate(angle, Image.Resampling.BILINEAR, fillcolor=128)
        .crop((40, 40, 216, 216))
    )
    upper = Image.composite(
        Image.new("RGB", ramp.size, stops[1]), Image.new("RGB", ramp.size, stops[0]), ramp
    )
    whole = Image.composite(
        Image.new("RGB", ramp.size, stops[2]), upper, ramp.point([v * v // 255 for v in range(256)])
    )
    return whole.resize(size, Image.Resampling.BICUBIC)


def _sun(canvas: Picture, color: tuple[int, int, int], at: tuple[float, float], radius: float) -> None:
    pixels = max(2, round(min(canvas.size) * radius))
    mask = Image.new("L", (pixels * 4, pixels * 4))
    ImageDraw.Draw(mask).ellipse((0, 0, pixels * 4 - 1, pixels * 4 - 1), fill=235)
    mask = mask.resize((pixels * 2, pixels * 2), Image.Resampling.BOX)
    x, y = round(canvas.width * at[0]) - pixels, round(canvas.height * at[1]) - pixels
    canvas.paste(color, (x, y, x + pixels * 2, y + pixels * 2), mask)


def _hills(canvas: Picture, chance: random.Random, height: float, color: tuple[int, int, int]) -> None:
    width, tall = canvas.size
    waves = [
        (chance.uniform(0.6, 3.2), chance.uniform(0, 6.28), chance.uniform(0.015, 0.05)) for _ in range(3)
    ]
    count = min(width, 96)
    line = []
    for index in range(count + 1):
        part = index / count
        level = height + sum(size * math.sin(part * often * 6.28 + phase) for often, phase, size in waves)
        line.append((part * width, level * tall))
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon([(0, tall), *line, (width, tall)], fill=215)
    canvas.paste(color, (0, 0), mask)


def _mix(first: tuple[int, int, int], second: tuple[int, int, int], part: float) -> tuple[int, int, int]:
    r, g, b = (round(x + (y - x) * part) for x, y in zip(first, second, strict=True))
    return r, g, b


def _mixed(recipe: Recipe, pattern: Picture) -> Picture:
    """The pattern over the picture that it began from, where and as far as it may change that."""
    size = pattern.size
    if recipe.guide is not None:
        edges = recipe.guide.convert("L").resize(size)
        pattern = Image.composite(ImageChops.screen(pattern, edges.convert("RGB")), pattern, edges)
    if recipe.base is None:
        return pattern
    base = recipe.base.convert("RGB").resize(size) if recipe.base.size != size else recipe.base.convert("RGB")
    changed = Image.blend(base, pattern, min(1.0, max(0.0, recipe.denoise)))
    if recipe.mask is None:
        return changed
    mask = recipe.mask.resize(size).filter(ImageFilter.GaussianBlur(max(1, min(size) // 128)))
    return Image.composite(changed, base, mask)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def details(recipe: Recipe) -> list[str]:
    """What was asked for besides the prompt, one line a topic."""
    first = [
        f"seed {recipe.seed}",
        f"{recipe.width} x {recipe.height}",
        f"{recipe.steps} steps",
    ]
    second = [f"cfg {recipe.cfg:g}", recipe.sampler]
    if recipe.denoise < 1:
        second.append(f"denoise {recipe.denoise:.2g}")
    if recipe.index:
        second.append(f"picture {recipe.index + 1}")
    lines = [SEPARATOR.join(first), SEPARATOR.join(second), PurePath(recipe.model).stem]
    if recipe.loras:
        lines.append(SEPARATOR.join(f"{PurePath(n).stem} {s:g}" for n, s in recipe.loras))
    if recipe.notes:
        lines.append(SEPARATOR.join(recipe.notes))
    return lines


def _readable(text: str) -> str:
    """The built-in font has no accents: the letters without them are better than boxes."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _write(picture: Picture, recipe: Recipe) -> None:
    width, height = picture.size
    big = max(11, round(min(width, height) / 19))
    small = max(9, round(big * 0.62))
    margin = round(big * 0.8)
    columns = max(8, int((width - 4 * margin) / (big * 0.53)))
    prompt = textwrap.wrap(_readable(recipe.prompt) or "(no prompt)", columns)
    prompt = (
        [*prompt[:3], prompt[3][: columns - 1] + "\N{HORIZONTAL ELLIPSIS}"] if len(prompt) > 4 else prompt
    )
    lines = [(line, big, (255, 255, 255, 255)) for line in prompt]
    columns = max(8, int((width - 4 * margin) / (small * 0.5)))
    below = details(recipe)
    if recipe.negative:
        below.append(f"not: {_readable(recipe.negative)}")
    for line in below:
        shown = textwrap.wrap(line, columns) or [""]
        lines += [(part, small, (226, 232, 240, 235)) for part in shown[:2]]
    tall = sum(round(size * 1.35) for _, size, _ in lines) + margin
    top = max(margin, height - tall - 2 * margin)
    overlay = Image.new("RGBA", (width, height - top))
    pen = ImageDraw.Draw(overlay)
    pen.rounded_rectangle(
        (margin, 0, width - margin, min(tall, height - top - margin)), radius=margin, fill=(8, 12, 24, 150)
    )
    y = margin * 0.5
    for line, size, color in lines:
        if y + size > height - top - margin:
            break
        pen.text((2 * margin, y), line, font=_font(size), fill=color)
        y += round(size * 1.35)
    mark = max(8, round(small * 0.85))
    pen.text(
        (width - margin, height - top - 2),
        "simulated",
        font=_font(mark),
        fill=(255, 255, 255, 150),
        anchor="rb",
    )
    picture.paste(overlay, (0, top), overlay)
