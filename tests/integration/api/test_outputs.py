"""Every kind of output, through the API: kind, media type, order, and whether a real decoder opens it."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import InputContainer
from PIL import Image
from tests.support.api import Client, connected
from tests.support.sounds import sound, video
from tests.support.stack import FAST, online, running, until

from comfy_api_service.simulator import Simulator, SimulatorSettings

pytestmark = pytest.mark.sqlite

JOBS = "/api/v1/jobs"
RED, BLUE = 0xFF0000, 0x0000FF


@pytest.fixture(params=["0.3.64", "0.8.0"])
async def sim(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    settings = SimulatorSettings(
        seconds_per_step=0.002, seconds_per_load=0.0, cleanup_seconds=0.0, protocol=request.param
    )
    async with Simulator(settings) as simulator:
        yield simulator


def colour(value: int, count: int = 1) -> dict[str, Any]:
    inputs = {"width": 96, "height": 64, "batch_size": count, "color": value}
    return {"class_type": "EmptyImage", "inputs": inputs}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


async def run(client: Client, graph: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(JOBS, json={"workflow": graph})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = {}

    async def over() -> bool:
        job.update((await client.get(f"{JOBS}/{answer.json()['job_id']}")).json())
        return job["status"] in ("succeeded", "failed", "canceled")

    await until(over)
    return job


async def result(client: Client, job: dict[str, Any], index: int = 0, **asked: Any) -> Any:
    """The bytes, held to what the job says of them."""
    accept = asked.pop("accept", None)
    headers = {} if accept is None else {"Accept": accept}
    answer = await client.get(
        f"{JOBS}/{job['job_id']}/result", params={"index": index, **asked}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    if not asked and accept is None:
        artifact = job["result"]["artifacts"][index]
        assert answer.headers["content-type"] == artifact["media_type"]
        assert len(answer.content) == artifact["bytes"]
    return answer


def told(job: dict[str, Any]) -> list[tuple[str, str, str]]:
    assert job["status"] == "succeeded", job["error"]
    return [(one["node_id"], one["kind"], one["media_type"]) for one in job["result"]["artifacts"]]


@contextmanager
def decoder(content: bytes) -> Iterator[InputContainer]:
    with av.open(io.BytesIO(content)) as opened:
        assert isinstance(opened, InputContainer)
        yield opened


def picture(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


async def test_several_nodes_batches_folders_and_texts_in_the_graphs_order(client: Client) -> None:
    job = await run(
        client,
        {
            "1": colour(RED, 2),
            "10": node("SaveImage", images=["1", 0], filename_prefix="a/b/c"),
            "3": node("ImageInvert", image=["1", 0]),
            "4": node("PreviewImage", images=["3", 0]),
            "5": node("PrimitiveInt", value=41),
            "6": node("PreviewAny", source=["5", 0]),
            "7": node("PrimitiveString", value="zwei\n\tZeilen, 猫"),
            "8": node("PreviewAny", source=["7", 0]),
        },
    )
    png = ("image", "image/png")
    assert told(job) == [("4", *png), ("4", *png), ("10", *png), ("10", *png)]
    assert job["result"]["values"] == {"6": ["41"], "8": ["zwei\n\tZeilen, 猫"]}
    seen = [picture((await result(client, job, n)).content).getpixel((5, 5)) for n in range(4)]
    assert seen == [(0, 255, 255)] * 2 + [(255, 0, 0)] * 2


async def test_text_alone_is_a_result(client: Client) -> None:
    job = await run(
        client, {"1": node("PrimitiveString", value="hello"), "2": node("PreviewAny", source=["1", 0])}
    )
    assert told(job) == []
    assert job["result"]["values"] == {"2": ["hello"]}
    answer = await client.get(f"{JOBS}/{job['job_id']}/result")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_a_picture_for_the_socket(client: Client) -> None:
    job = await run(client, {"1": colour(BLUE, 2), "2": node("SaveImageWebsocket", images=["1", 0])})
    assert told(job) == [("2", "image", "image/png")] * 2
    assert picture((await result(client, job, 1)).content).getpixel((0, 0)) == (0, 0, 255)


ANIMATED: dict[str, tuple[str, dict[str, Any]]] = {
    "SaveAnimatedWEBP": (
        "image/webp",
        {"fps": 4.0, "lossless": True, "quality": 80, "method": "default"},
    ),
    "SaveAnimatedPNG": ("image/png", {"fps": 4.0, "compress_level": 4}),
}


@pytest.mark.parametrize("saver", ANIMATED)
async def test_animations(client: Client, saver: str) -> None:
    media_type, inputs = ANIMATED[saver]
    job = await run(
        client,
        {
            "1": colour(RED),
            "2": colour(BLUE),
            "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
            "4": node(saver, images=["3", 0], filename_prefix="x", **inputs),
        },
    )
    assert told(job) == [("4", "animation", media_type)]
    content = (await result(client, job)).content
    assert b"class_type" not in content
    moving = picture(content)
    assert (moving.format, getattr(moving, "n_frames", 1)) == (media_type[6:].upper(), 2)
    assert moving.info["duration"] == 250
    seen = []
    for frame in range(2):
        moving.seek(frame)
        seen.append(moving.convert("RGB").getpixel((5, 5)))
    assert seen == [(255, 0, 0), (0, 0, 255)]

    small = await result(client, job, size=32)
    thumbnail = picture(small.content)
    assert (small.headers["content-type"], thumbnail.size) == ("image/webp", (32, 21))
    assert getattr(thumbnail, "n_frames", 1) == 1
    refused = await client.get(f"{JOBS}/{job['job_id']}/result", headers={"Accept": "image/jpeg"})
    assert (refused.status_code, refused.json()["error"]["details"]) == (406, {"available": [media_type]})


@pytest.mark.parametrize(("saver", "kind"), [("SaveAnimatedWEBP", "webp"), ("SaveAnimatedPNG", "png")])
async def test_an_animation_of_one_frame_is_what_its_content_is(
    client: Client, saver: str, kind: str
) -> None:
    _, inputs = ANIMATED[saver]
    job = await run(
        client, {"1": colour(RED), "4": node(saver, images=["1", 0], filename_prefix="x", **inputs)}
    )
    assert told(job) == [("4", "image", f"image/{kind}")]
    jpeg = await result(client, job, accept="image/jpeg")
    assert picture(jpeg.content).format == "JPEG"


@pytest.mark.parametrize("asked", ["image/png", "image/jpeg", "image/webp"])
async def test_pictures_in_another_format_and_small(client: Client, asked: str) -> None:
    job = await run(client, {"1": colour(RED), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    other = await result(client, job, accept=asked)
    assert other.headers["content-type"] == asked
    shown = picture(other.content)
    assert (shown.format, shown.size) == (asked[6:].upper(), (96, 64))
    red, green, blue = shown.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5
    small = picture((await result(client, job, size=256)).content)
    assert (small.format, small.size) == ("WEBP", (96, 64))


SAVERS = {
    "mp4": (
        "video/mp4",
        {
            "2": node("CreateVideo", images=["1", 0], fps=8.0),
            "3": node("SaveVideo", video=["2", 0], filename_prefix="video/out", format="mp4", codec="h264"),
        },
    ),
    "webm": (
        "video/webm",
        {"3": node("SaveWEBM", images=["1", 0], filename_prefix="x", codec="vp9", fps=8.0, crf=32.0)},
    ),
}


@pytest.mark.parametrize("container", SAVERS)
async def test_videos_of_the_nodes_that_save_them(client: Client, container: str) -> None:
    """The simulator's containers are sound; their pictures are none."""
    media_type, nodes = SAVERS[container]
    job = await run(client, {"1": colour(RED, 8), **nodes})
    assert told(job) == [("3", "video", media_type)]
    (artifact,) = job["result"]["artifacts"]
    assert (artifact["width"], artifact["height"]) == (96, 64)
    content = (await result(client, job)).content
    assert b"class_type" not in content
    with decoder(content) as opened:
        (stream,) = opened.streams.video
        assert (stream.width, stream.height) == (96, 64)
        assert sum(packet.size > 0 for packet in opened.demux(stream)) == 8
    for query in ({"size": 256}, {}):
        accept = {} if query else {"Accept": "image/png"}
        refused = await client.get(f"{JOBS}/{job['job_id']}/result", params=query, headers=accept)
        assert (refused.status_code, refused.json()["error"]["code"]) == (406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize("under", ["images", "gifs", "video"])
@pytest.mark.parametrize(
    ("container", "codec", "media_type"),
    [
        ("mp4", "h264", "video/mp4"),
        ("webm", "libvpx-vp9", "video/webm"),
        ("matroska", "h264", "video/x-matroska"),
    ],
)
async def test_videos_that_were_really_encoded(
    client: Client, sim: Simulator, container: str, codec: str, media_type: str, under: str
) -> None:
    """Under whatever key a node tells of them."""
    sim.faults.answer_output("SaveImage", {under: [{"filename": "a", "subfolder": "", "type": "output"}]})
    sim.faults.serve_content(video(container, codec))
    job = await run(client, {"1": colour(RED), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert told(job) == [("2", "video", media_type)]
    content = (await result(client, job)).content
    assert b"class_type" not in content
    with decoder(content) as opened:
        frames = [frame.to_image() for frame in opened.decode(video=0)]  # type: ignore[no-untyped-call]
    assert [frame.size for frame in frames] == [(96, 64)] * 6
    red, _, blue = frames[0].getpixel((5, 5))
    assert (red > 200, blue < 60) == (True, True)


@pytest.mark.parametrize(
    ("container", "codec", "media_type"),
    [
        ("flac", "flac", "audio/flac"),
        ("mp3", "libmp3lame", "audio/mpeg"),
        ("ogg", "libopus", "audio/ogg"),
        ("wav", "pcm_s16le", "audio/wav"),
    ],
)
async def test_sounds(client: Client, sim: Simulator, container: str, codec: str, media_type: str) -> None:
    """As SaveAudio, SaveAudioMP3, SaveAudioOpus and PreviewAudio tell of theirs."""
    told_of = {"filename": f"ComfyUI_00001_.{container}", "subfolder": "audio", "type": "temp"}
    sim.faults.answer_output("PreviewImage", {"audio": [told_of]})
    sim.faults.serve_content(sound(container, codec))
    job = await run(client, {"1": colour(RED), "2": node("PreviewImage", images=["1", 0])})
    assert told(job) == [("2", "audio", media_type)]
    content = (await result(client, job)).content
    assert b"class_type" not in content
    with decoder(content) as opened:
        seconds = sum((frame.samples / frame.sample_rate for frame in opened.decode(audio=0)), 0.0)
    assert seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("shape.glb", b"glTF\x02\0\0\0" + bytes(64)),
        ("page.html", b"<!doctype html><script>alert(1)</script>"),
    ],
)
async def test_other_files_are_only_ever_downloaded(
    client: Client, sim: Simulator, name: str, content: bytes
) -> None:
    sim.faults.answer_output("SaveImage", {"3d": [{"filename": name, "subfolder": "", "type": "output"}]})
    sim.faults.serve_content(content)
    job = await run(client, {"1": colour(RED), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert told(job) == [("2", "file", "application/octet-stream")]
    answer = await result(client, job)
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_text_file_is_a_text(client: Client, sim: Simulator) -> None:
    sim.faults.answer_output(
        "SaveImage", {"files": [{"filename": "a.txt", "subfolder": "", "type": "output"}]}
    )
    sim.faults.serve_content("Größe: 3\n".encode())
    job = await run(client, {"1": colour(RED), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert told(job) == [("2", "text", "text/plain; charset=utf-8")]
    assert (await result(client, job)).text == "Größe: 3\n"


async def test_a_gif(client: Client, sim: Simulator) -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=100)
    sim.faults.answer_output(
        "SaveImage", {"gifs": [{"filename": "a.gif", "subfolder": "", "type": "output"}]}
    )
    sim.faults.serve_content(out.getvalue())
    job = await run(client, {"1": colour(RED), "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
    assert told(job) == [("2", "animation", "image/gif")]
    assert getattr(picture((await result(client, job)).content), "n_frames", 1) == 3
    assert picture((await result(client, job, size=16)).content).size == (16, 12)


async def test_what_history_tells_is_what_the_socket_tells(tmp_path: Path) -> None:
    graph = {
        "1": colour(RED, 2),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        "3": node("PrimitiveFloat", value=1.5),
        "4": node("PreviewAny", source=["3", 0]),
    }
    async with (
        Simulator(FAST) as sim,
        running(tmp_path, sim.url) as service,
        connected(service.app) as client,
    ):
        await online(service)
        sim.faults.silence_socket()
        job = await run(client, graph)
        assert told(job) == [("2", "image", "image/png")] * 2
        assert job["result"]["values"] == {"4": ["1.5"]}
