"""Nodes that save pictures, or send them over the socket."""

import io
import json
from collections.abc import Callable
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_api_service.simulator.files import OutsideOutputError
from comfy_api_service.simulator.values import Images, Picture, Result

from .base import Call, NodeFailure, node

FAST, SMALL = 1, 4
"""zlib levels of PreviewImage and SaveImage."""
WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}


def entry(filename: str, subfolder: str, kind: str) -> dict[str, str]:
    return {"filename": filename, "subfolder": subfolder, "type": kind}


def reserve(call: Call, prefix: str, kind: str, images: Images) -> tuple[Callable[[int, str], str], str]:
    """A function that gives the full path of the n-th file with an extension, and the subfolder."""
    try:
        folder, subfolder, name, first = call.around.files.reserve(
            prefix, kind, len(images.frames), images.size
        )
    except OutsideOutputError as error:
        raise NodeFailure("Exception", str(error)) from None

    def path(index: int, extension: str) -> str:
        shown = name.replace("%batch_num%", str(index))
        return str(folder / f"{shown}_{first + index:05}_.{extension}")

    return path, subfolder


def _metadata(call: Call) -> PngInfo:
    info = PngInfo()
    info.add_text("prompt", json.dumps(call.around.graph))
    for name, value in (call.around.extra_pnginfo or {}).items():
        info.add_text(name, json.dumps(value))
    return info


def _save(call: Call, prefix: str, kind: str, level: int) -> Result:
    images = call.images("images")
    path, subfolder = reserve(call, prefix, kind, images)
    entries = []
    fixed = call.around.settings.fixed_output is not None
    metadata = None if fixed else _metadata(call)
    for index, frame in enumerate(images.frames):
        full = path(index, "png")
        name = full.rpartition("/")[2]
        if fixed:
            call.around.files.pretend(name, subfolder, kind)
        else:
            frame.save(full, pnginfo=metadata, compress_level=level)
        entries.append(entry(name, subfolder, kind))
    return Result((), {"images": entries})


@node("SaveImage")
async def save_image(call: Call) -> Result:
    prefix = call.text("filename_prefix", "ComfyUI")
    if call.around.settings.fixed_output is not None:
        return _save(call, prefix, "output", SMALL)
    return await call.thread(lambda: _save(call, prefix, "output", SMALL))


@node("PreviewImage")
async def preview_image(call: Call) -> Result:
    prefix = "ComfyUI" + call.around.temp_suffix()
    if call.around.settings.fixed_output is not None:
        return _save(call, prefix, "temp", FAST)
    return await call.thread(lambda: _save(call, prefix, "temp", FAST))


def _png(picture: Picture) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=FAST)
    return out.getvalue()


@node("SaveImageWebsocket")
async def save_websocket(call: Call) -> Result:
    frames = call.images("images").frames
    fixed = call.around.settings.fixed_output
    for index, frame in enumerate(frames):
        data = fixed if fixed is not None else await call.thread(lambda frame=frame: _png(frame))  # type: ignore[misc]
        await call.around.step(index, len(frames), result=data)
    return Result()


def _animated(call: Call, extension: str, write: Callable[[list[Picture], str], None]) -> Result:
    images = call.images("images")
    path, subfolder = reserve(
        call, call.text("filename_prefix", "ComfyUI"), "output", Images(images.frames[:1])
    )
    full = path(0, extension)
    name = full.rpartition("/")[2]
    write(list(images.frames), full)
    ui: dict[str, Any] = {"images": [entry(name, subfolder, "output")]}
    several = len(images.frames) > 1
    if call.around.settings.protocol == "0.3.64":
        ui["animated"] = [several or extension == "png"]
    elif several:
        ui["animated"] = [True]
    return Result((), ui)


@node("SaveAnimatedWEBP", heavy=True)
def save_animated_webp(call: Call) -> Result:
    def write(frames: list[Picture], path: str) -> None:
        exif = Image.Exif()
        exif[0x0110] = "prompt:" + json.dumps(call.around.graph)
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=int(1000 / call.number("fps", 6.0)),
            lossless=call.flag("lossless", default=True),
            quality=call.integer("quality", 80),
            method=WEBP_METHODS.get(call.text("method"), 4),
            exif=exif,
        )

    return _animated(call, "webp", write)


@node("SaveAnimatedPNG", heavy=True)
def save_animated_png(call: Call) -> Result:
    def write(frames: list[Picture], path: str) -> None:
        frames[0].save(
            path,
            pnginfo=_metadata(call),
            compress_level=call.integer("compress_level", 4),
            save_all=True,
            duration=int(1000 / call.number("fps", 6.0)),
            append_images=frames[1:],
        )

    return _animated(call, "png", write)
