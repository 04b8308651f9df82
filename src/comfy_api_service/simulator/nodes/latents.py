"""Nodes between pictures and latents, and those that change latents."""

import dataclasses

from PIL import Image

from comfy_api_service.simulator.drawing import draw
from comfy_api_service.simulator.values import Images, Latent, Picture, Recipe, Result

from .base import Call, Outputs, node
from .images import plain, resize

UNDRAWN = 0x7F776F
"""What an empty latent decodes to: a warm grey."""


def decoded(frame: Picture | Recipe | None, size: tuple[int, int]) -> Picture:
    """The picture of one frame of a latent."""
    if frame is None:
        return plain(size, UNDRAWN)
    picture = draw(frame) if isinstance(frame, Recipe) else frame
    return picture if picture.size == size else resize(picture, size)


def _to_eight(value: int) -> int:
    return max(8, value // 8 * 8)


@node("EmptyLatentImage", "EmptySD3LatentImage")
def empty(call: Call) -> Outputs:
    width, height = _to_eight(call.integer("width")), _to_eight(call.integer("height"))
    count = call.integer("batch_size", 1)
    call.allocate(width, height, count)
    return (Latent(width, height, (None,) * count),)


@node("VAEDecode", "VAEDecodeTiled")
async def decode(call: Call) -> Outputs:
    latent = call.latent()
    size = (latent.width, latent.height)
    call.allocate(*size, len(latent.frames))
    if call.around.settings.fixed_output is not None:
        return (Images((plain(size, UNDRAWN),) * len(latent.frames)),)
    frames = [await call.thread(lambda frame=frame: decoded(frame, size)) for frame in latent.frames]  # type: ignore[misc]
    return (Images(tuple(frames)),)


def _encoded(images: Images) -> Latent:
    size = (_to_eight(images.size[0]), _to_eight(images.size[1]))
    frames = tuple(f if f.size == size else f.crop((0, 0, *size)) for f in images.frames)
    return Latent(*size, frames)


@node("VAEEncode", heavy=True)
def encode(call: Call) -> Outputs:
    return (_encoded(call.images("pixels")),)


@node("VAEEncodeForInpaint", heavy=True)
def encode_for_inpaint(call: Call) -> Outputs:
    return (dataclasses.replace(_encoded(call.images("pixels")), mask=call.mask().picture),)


@node("InpaintModelConditioning", heavy=True)
def inpaint_conditioning(call: Call) -> Outputs:
    latent = _encoded(call.images("pixels"))
    if call.flag("noise_mask", default=True):
        latent = dataclasses.replace(latent, mask=call.mask().picture)
    return call.conditioning("positive"), call.conditioning("negative"), latent


@node("SetLatentNoiseMask")
def set_noise_mask(call: Call) -> Outputs:
    return (dataclasses.replace(call.latent(), mask=call.mask().picture),)


async def _resized(call: Call, width: int, height: int) -> Outputs:
    latent = call.latent()
    size = (_to_eight(width), _to_eight(height))
    call.allocate(*size, len(latent.frames))

    def work() -> tuple[Picture | None, ...]:
        return tuple(None if f is None else decoded(f, size) for f in latent.frames)

    if call.around.settings.fixed_output is not None:
        return (Latent(*size, (None,) * len(latent.frames)),)
    return (Latent(*size, await call.thread(work)),)


@node("LatentUpscale")
async def upscale(call: Call) -> Outputs:
    latent = call.latent()
    width, height = call.integer("width"), call.integer("height")
    if width == height == 0:
        return (latent,)
    width = width or round(latent.width * height / latent.height)
    height = height or round(latent.height * width / latent.width)
    return await _resized(call, width, height)


@node("LatentUpscaleBy")
async def upscale_by(call: Call) -> Outputs:
    factor = call.number("scale_by", 1.5)
    return await _resized(call, round(call.latent().width * factor), round(call.latent().height * factor))


@node("LatentFromBatch")
def from_batch(call: Call) -> Outputs:
    latent = call.latent()
    start = min(call.integer("batch_index"), len(latent.frames) - 1)
    frames = latent.frames[start : start + max(1, call.integer("length", 1))]
    return (dataclasses.replace(latent, frames=frames),)


@node("RepeatLatentBatch")
def repeat(call: Call) -> Outputs:
    latent, amount = call.latent(), call.integer("amount", 1)
    call.allocate(latent.width, latent.height, len(latent.frames) * amount)
    return (dataclasses.replace(latent, frames=latent.frames * amount),)


@node("LatentBlend", heavy=True)
def blend(call: Call) -> Outputs:
    first, second = call.latent("samples1"), call.latent("samples2")
    size, factor = (first.width, first.height), call.number("blend_factor", 0.5)
    frames = tuple(
        Image.blend(decoded(second.frames[min(i, len(second.frames) - 1)], size), decoded(f, size), factor)
        for i, f in enumerate(first.frames)
    )
    return (Latent(*size, frames),)


@node("SaveLatent", heavy=True)
def save(call: Call) -> Result:
    latent = call.latent()
    folder, subfolder, name, number = call.around.files.reserve(
        call.text("filename_prefix", "latents/ComfyUI"), "output", 1, (latent.width, latent.height)
    )
    filename = f"{name}_{number:05}_.latent"
    (folder / filename).write_bytes(f"simulated latent {latent}".encode())
    return Result((), {"latents": [{"filename": filename, "subfolder": subfolder, "type": "output"}]})


@node("LoadLatent")
def load(call: Call) -> Outputs:
    call.text("latent")
    return (Latent(512, 512, (None,)),)
