"""Videos: containers of the right structure and number of frames, whose pictures no player shows."""

import json
from pathlib import Path

from comfy_api_service.simulator.media import mp4, webm
from comfy_api_service.simulator.values import Images, Result, Video

from .base import Call, Outputs, node
from .images import plain
from .saving import entry, reserve


@node("CreateVideo")
def create(call: Call) -> Outputs:
    return (Video(call.images("images"), call.number("fps", 30.0)),)


@node("LoadVideo")
def load(call: Call) -> Outputs:
    call.text("file")
    return (Video(Images((plain((64, 64), 0),)), 24.0),)


@node("SaveVideo", heavy=True)
def save(call: Call) -> Result:
    video = call.get("video", Video)
    first = Images(video.images.frames[:1])
    path, subfolder = reserve(call, call.text("filename_prefix", "video/ComfyUI"), "output", first)
    full = path(0, "mp4")
    comment = json.dumps(call.around.graph).encode()
    Path(full).write_bytes(mp4(video.images.size, len(video.images.frames), video.fps, comment))
    ui = {"images": [entry(Path(full).name, subfolder, "output")], "animated": [True]}
    return Result((), ui)


@node("SaveWEBM", heavy=True)
def save_webm(call: Call) -> Result:
    images = call.images("images")
    path, subfolder = reserve(
        call, call.text("filename_prefix", "ComfyUI"), "output", Images(images.frames[:1])
    )
    full = path(0, "webm")
    codec = "V_AV1" if call.text("codec") == "av1" else "V_VP9"
    comment = json.dumps(call.around.graph).encode()
    Path(full).write_bytes(webm(images.size, len(images.frames), call.number("fps", 24.0), codec, comment))
    return Result((), {"images": [entry(Path(full).name, subfolder, "output")], "animated": [True]})
