"""Nodes that work on pictures; these do what their real counterparts do."""

import math
from functools import lru_cache

from PIL import Image, ImageChops, ImageFilter, ImageOps, UnidentifiedImageError

from comfy_api_service.simulator.values import Images, Mask, Picture

from .base import Call, NodeFailure, Outputs, node

RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_FRAMES = 64


@lru_cache(maxsize=8)
def plain(size: tuple[int, int], color: int) -> Picture:
    """A picture of one colour; shared, so never drawn upon."""
    return Image.new("RGB", size, ((color >> 16) & 255, (color >> 8) & 255, color & 255))


def resize(
    picture: Picture, size: tuple[int, int], method: str = "bicubic", *, crop: bool = False
) -> Picture:
    if crop:
        wanted, real = size[0] / size[1], picture.width / picture.height
        width = round(picture.height * wanted) if real > wanted else picture.width
        height = round(picture.width / wanted) if real < wanted else picture.height
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    return picture.resize(size, RESAMPLING.get(method, Image.Resampling.BICUBIC))


def _open(call: Call) -> Picture:
    name = call.text("image")
    path, _ = call.around.files.find_input(name)
    if path is None:
        raise NodeFailure(
            "PIL.UnidentifiedImageError", f"cannot identify image file {call.around.files.shown(name)!r}"
        )
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened.copy()
    except UnidentifiedImageError:
        shown = call.around.files.shown(name)
        raise NodeFailure("PIL.UnidentifiedImageError", f"cannot identify image file {shown!r}") from None
    except FileNotFoundError:
        shown = call.around.files.shown(name)
        raise NodeFailure("FileNotFoundError", f"[Errno 2] No such file or directory: {shown!r}") from None


@node("LoadImage", heavy=True)
def load_image(call: Call) -> Outputs:
    picture = ImageOps.exif_transpose(_open(call))
    if "A" in picture.getbands() or "transparency" in picture.info:
        mask = ImageChops.invert(picture.convert("RGBA").getchannel("A"))
    else:
        mask = Image.new("L", (64, 64), 0)
    return Images((picture.convert("RGB"),)), Mask(mask)


@node("LoadImageMask", heavy=True)
def load_image_mask(call: Call) -> Outputs:
    picture = _open(call).convert("RGBA")
    channel = call.text("channel", "alpha")
    band = picture.getchannel({"red": "R", "green": "G", "blue": "B"}.get(channel, "A"))
    return (Mask(ImageChops.invert(band) if channel == "alpha" else band),)


@node("EmptyImage")
def empty_image(call: Call) -> Outputs:
    width, height, count = call.integer("width"), call.integer("height"), call.integer("batch_size", 1)
    call.allocate(width, height, count)
    return (Images((plain((width, height), call.integer("color")),) * count),)


@node("ImageInvert", heavy=True)
def invert(call: Call) -> Outputs:
    return (Images(tuple(ImageChops.invert(f) for f in call.images().frames)),)


def _scaled(call: Call, size: tuple[int, int], *, crop: bool = False) -> Outputs:
    images = call.images()
    call.allocate(*size, len(images.frames))
    method = call.text("upscale_method", "bicubic")
    return (Images(tuple(resize(f, size, method, crop=crop) for f in images.frames)),)


@node("ImageScale", heavy=True)
def scale(call: Call) -> Outputs:
    width, height = call.integer("width"), call.integer("height")
    real_width, real_height = call.images().size
    if width == height == 0:
        return (call.images(),)
    width = width or max(1, round(real_width * height / real_height))
    height = height or max(1, round(real_height * width / real_width))
    return _scaled(call, (width, height), crop=call.text("crop") == "center")


@node("ImageScaleBy", heavy=True)
def scale_by(call: Call) -> Outputs:
    width, height = call.images().size
    factor = call.number("scale_by", 1.0)
    return _scaled(call, (max(1, round(width * factor)), max(1, round(height * factor))))


@node("ImageScaleToTotalPixels", heavy=True)
def scale_to_total(call: Call) -> Outputs:
    width, height = call.images().size
    factor = math.sqrt(call.number("megapixels", 1.0) * 1024 * 1024 / (width * height))
    step = max(1, call.integer("resolution_steps", 1))
    wanted = (round(width * factor / step) * step, round(height * factor / step) * step)
    return _scaled(call, (max(1, wanted[0]), max(1, wanted[1])))


@node("ImageUpscaleWithModel", heavy=True)
def upscale_with_model(call: Call) -> Outputs:
    name = str(getattr(call.inputs.get("upscale_model"), "name", "")).lower()
    factor = next((n for n in (8, 4, 3, 2, 1) if f"x{n}" in name or f"{n}x" in name), 4)
    width, height = call.images().size
    images = call.images()
    call.allocate(width * factor, height * factor, len(images.frames))
    size = (width * factor, height * factor)
    return (Images(tuple(resize(f, size, "lanczos") for f in images.frames)),)


@node("ImageCrop", heavy=True)
def crop(call: Call) -> Outputs:
    images = call.images()
    width, height = images.size
    x, y = min(call.integer("x"), width - 1), min(call.integer("y"), height - 1)
    box = (x, y, min(x + call.integer("width"), width), min(y + call.integer("height"), height))
    return (Images(tuple(f.crop(box) for f in images.frames)),)


@node("ImageBatch", heavy=True)
def batch(call: Call) -> Outputs:
    first, second = call.images("image1"), call.images("image2")
    if first.size != second.size:
        second = Images(tuple(resize(f, first.size, "bilinear", crop=True) for f in second.frames))
    return (Images(first.frames + second.frames),)


@node("ImageFromBatch")
def from_batch(call: Call) -> Outputs:
    frames = call.images().frames
    start = min(call.integer("batch_index"), len(frames) - 1)
    return (Images(frames[start : start + max(1, call.integer("length", 1))]),)


@node("ImageBlend", heavy=True)
def blend(call: Call) -> Outputs:
    first, second = call.images("image1"), call.images("image2")
    factor, mode = call.number("blend_factor", 0.5), call.text("blend_mode", "normal")
    mixes = {
        "multiply": ImageChops.multiply,
        "screen": ImageChops.screen,
        "overlay": ImageChops.overlay,
        "soft_light": ImageChops.soft_light,
        "difference": ImageChops.difference,
    }
    frames = []
    for index, frame in enumerate(first.frames):
        other = second.frames[min(index, len(second.frames) - 1)]
        if other.size != frame.size:
            other = resize(other, frame.size, crop=True)
        mixed = mixes[mode](frame, other) if mode in mixes else other
        frames.append(Image.blend(frame, mixed, factor))
    return (Images(tuple(frames)),)


@node("ImageBlur", heavy=True)
def blur(call: Call) -> Outputs:
    radius = call.integer("blur_radius", 1)
    return (Images(tuple(f.filter(ImageFilter.GaussianBlur(radius)) for f in call.images().frames)),)


@node("Canny", heavy=True)
def canny(call: Call) -> Outputs:
    low = int(call.number("low_threshold", 0.4) * 255)

    def edges(frame: Picture) -> Picture:
        found = frame.convert("L").filter(ImageFilter.FIND_EDGES)
        return found.point([255 if v > low // 2 else 0 for v in range(256)]).convert("RGB")

    return (Images(tuple(edges(f) for f in call.images().frames)),)


@node("ImagePadForOutpaint", heavy=True)
def pad_for_outpaint(call: Call) -> Outputs:
    left, top = call.integer("left"), call.integer("top")
    images = call.images()
    width, height = images.size
    size = (width + left + call.integer("right"), height + top + call.integer("bottom"))
    call.allocate(*size, len(images.frames))
    frames = []
    for frame in images.frames:
        padded = Image.new("RGB", size, (128, 128, 128))
        padded.paste(frame, (left, top))
        frames.append(padded)
    mask = Image.new("L", size, 255)
    mask.paste(0, (left, top, left + width, top + height))
    feathering = call.integer("feathering")
    if feathering:
        mask = ImageChops.lighter(mask, mask.filter(ImageFilter.BoxBlur(feathering / 2)))
    return Images(tuple(frames)), Mask(mask)


@node("MaskToImage", heavy=True)
def mask_to_image(call: Call) -> Outputs:
    return (Images((call.mask().picture.convert("RGB"),)),)


@node("ImageToMask", heavy=True)
def image_to_mask(call: Call) -> Outputs:
    channel = call.text("channel", "red")
    frame = call.images().frames[0]
    if channel == "alpha":
        return (Mask(Image.new("L", frame.size, 255)),)
    return (Mask(frame.getchannel({"red": "R", "green": "G"}.get(channel, "B"))),)
