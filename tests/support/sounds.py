"""Videos and sounds that a real encoder made, with a graph in their comments, as ComfyUI writes them."""

import io
import math
import struct
from functools import cache
from typing import Any

import av
from PIL import Image

COMMENT = '{"1": {"class_type": "SaveVideo"}}'
RATE = 48_000


@cache
def video(container: str, codec: str, frames: int = 6) -> bytes:
    """Reddish pictures of 96 by 64."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as opened:
        opened.metadata["comment"] = COMMENT
        stream: Any = opened.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            picture = Image.new("RGB", (96, 64), (255 - number, 0, 0))
            frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode(None))
    return out.getvalue()


@cache
def sound(container: str, codec: str) -> bytes:
    """A second of a tone."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as opened:
        opened.metadata["comment"] = COMMENT
        stream: Any = opened.add_stream(codec, rate=RATE)
        tone = (int(math.sin(n * 2 * math.pi * 440 / RATE) * 8000) for n in range(RATE))
        frame = av.AudioFrame(format="s16", layout="mono", samples=RATE)
        frame.planes[0].update(struct.pack(f"<{RATE}h", *tone))
        frame.sample_rate = RATE
        resampler = av.AudioResampler(
            format=stream.format, layout=stream.layout, rate=RATE, frame_size=stream.frame_size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            opened.mux(stream.encode(part))
        opened.mux(stream.encode(None))
    return out.getvalue()
