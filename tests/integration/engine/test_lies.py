"""Backends that lie about what they made: the job fails by name, and nothing of it stays anywhere."""

import asyncio
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.checker import check
from tests.support.graphs import flat_picture, submit_graph
from tests.support.pictures import png
from tests.support.stack import FAST, ended, online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.comfyui import files, streams, transport
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.job import Job, OutputFormat, OutputOptions, State
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker import collect, oversight

pytestmark = pytest.mark.sqlite
MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Scene:
    folder: Path
    sim: Simulator
    service: Service

    def everything(self) -> list[str]:
        """All files in the store, half written ones too, and all that lie beside the service's own folder."""
        beside = self.folder.parent
        found = []
        for root in (beside, self.folder / "artifacts"):
            for place, folders, names in os.walk(root):
                if root == beside and self.folder.name in folders:
                    folders.remove(self.folder.name)
                found += [str(Path(place) / name) for name in names]
        return sorted(found)

    async def clean(self, before: list[str]) -> None:
        """Once the job has ended, nothing is there but what was; files are removed after the end is told."""

        async def gone() -> bool:
            return await asyncio.to_thread(self.everything) == before

        await until(gone)

    async def run(self, graph: dict[str, Any] | None = None, **options: Any) -> Job:
        given = graph or flat_picture("SaveImage", filename_prefix="x")
        return await ended(self.service, await submit_graph(self.service, given, **options))

    def says(self, *named: dict[str, Any], **other: Any) -> None:
        self.sim.faults.answer_output("SaveImage", {"images": list(named), **other})

    async def refused(self, code: Code = Code.OUTPUT_INVALID, **options: Any) -> Job:
        """The job fails by this name at its first attempt, is charged nothing, and leaves nothing."""
        before = self.everything()
        job = await self.run(**options)
        assert job.error is not None
        assert (job.state, job.error.code, job.attempt) == (State.FAILED, code, 1)
        assert (job.artifacts, dict(job.values)) == ((), {})
        await self.clean(before)
        assert str(self.folder) not in job.error.message
        return job


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    folder = tmp_path / "data"
    async with Simulator(FAST) as sim, running(folder, sim.url) as service:
        await online(service)
        yield Scene(folder, sim, service)
    check(folder)


def named(filename: object = "a.png", subfolder: object = "", folder: object = "output") -> dict[str, Any]:
    return {"filename": filename, "subfolder": subfolder, "type": folder}


@pytest.mark.parametrize(
    "reference",
    [
        named("../../../etc/passwd"),
        named("/etc/passwd"),
        named("C:\\Windows\\win.ini"),
        named("a.png", "../../.."),
        named("a.png", "/etc"),
        named("a.png", "x/../../.."),
        named("a.png", "\\\\host\\share"),
        named("a.png", "", "models"),
        named("a.png", "", None),
        named(["a.png"]),
        named({"a": 1}),
        named("a\n.png"),
        named("a\x1b[2J.png"),
        named(None),
        named(""),
        {"filename": "a.png", "subfolder": 3, "type": "output"},
    ],
    ids=repr,
)
async def test_places_that_are_none(scene: Scene, reference: dict[str, Any]) -> None:
    scene.says(reference)
    scene.sim.faults.serve_content(png())
    await scene.refused()
    assert not [one for one in scene.sim.record.requests if one.path == "/view"]


async def test_another_jobs_file_is_not_delivered(scene: Scene) -> None:
    """The backend could serve it: it is there, and its name is right."""
    first = await scene.run()
    (name,) = (path.name for path in (scene.sim.files.root / "output" / "cui").glob("*/1/*"))
    for place in (f"cui/{first.id}/1", f"CUI/{first.id}/1", f"cui./{first.id}/1", f"cui\\{first.id}\\1"):
        for folder in ("output", "temp", "input"):
            scene.says(named(name, place, folder))
            await scene.refused()
    scene.says(named("secret.png", "cui", "temp"))
    await scene.refused()
    scene.says(named(name, "cui"))
    await scene.refused()
    viewed = [one for one in scene.sim.record.requests if one.path == "/view"]
    assert len(viewed) == 1


CHUNK = struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
PNG_HEAD = b"\x89PNG\r\n\x1a\n" + CHUNK + struct.pack(">I", zlib.crc32(CHUNK[4:]))
WRONG = {
    "page": b"<!doctype html><html><script>alert(1)</script></html>",
    "drawing": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "text": b"no such file",
    "program": b"\x7fELF" + bytes(100),
    "archive": b"PK\x03\x04" + bytes(100),
    "sound": b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0\x88\x58\x01\0\x02\0\x10\0data\x08\0\0\0"
    + bytes(8),
    "nothing": b"",
    "head": PNG_HEAD,
    "rubbish": PNG_HEAD + os.urandom(4096),
    "half": png(size=(64, 64))[:-20],
    "jpeg": b"\xff\xd8\xff" + os.urandom(4096),
    "webp": b"RIFF\xff\xff\0\0WEBPVP8 " + os.urandom(4096),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
async def test_what_is_not_what_its_name_says(scene: Scene, content: bytes) -> None:
    scene.sim.faults.serve_content(content)
    await scene.refused()


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.flac", "a.MP3", "a.wav"])
async def test_pages_that_are_named_as_videos_and_sounds(scene: Scene, name: str) -> None:
    scene.says(named(name))
    scene.sim.faults.serve_content(WRONG["page"])
    await scene.refused()


IDAT = struct.pack(">I", 0x7FFFFFFF) + b"IDAT"
ENDLESS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "png": (PNG_HEAD + IDAT, {}),
    "png as jpeg": (PNG_HEAD + IDAT, {"output": OutputOptions(format=OutputFormat.JPEG)}),
    "webp": (b"RIFF\xff\xff\xff\x7fWEBPVP8 \xf0\xff\xff\x7f", {}),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\0\0mdat", {}),
    "wav": (
        b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0\x88\x58\x01\0\x02\0\x10\0data\xff\xff\xff\x7f",
        {},
    ),
    "unknown": (b"\0\1\2", {}),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_file_without_an_end(tmp_path: Path, kind: str) -> None:
    begin, options = ENDLESS[kind]
    limit = 200 * MEGABYTE
    async with Simulator(FAST) as sim, running(tmp_path / "data", sim.url, artifact_limit=limit) as service:
        await online(service)
        scene = Scene(tmp_path / "data", sim, service)
        suffix = kind.partition(" ")[0]
        scene.says(named(f"a.{suffix}"))
        sim.faults.serve_endlessly(begin)
        before = scene.everything()
        tracemalloc.start()
        try:
            job = await scene.run(**options)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert job.error is not None
        assert job.error.code in (Code.OUTPUT_LIMIT_EXCEEDED, Code.OUTPUT_INVALID)
        assert peak < 48 * MEGABYTE
        await scene.clean(before)


async def test_a_file_that_trickles(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes in time, and the whole never: the attempt is lost, the job does not hang."""
    monkeypatch.setattr(streams.FileStream.__init__, "__kwdefaults__", {"patience": 0.3})
    monkeypatch.setattr(collect, "BACKEND_PATIENCE_SECONDS", 0.1)
    scene.sim.faults.serve_endlessly(PNG_HEAD, pause=0.02)
    job = await scene.run(max_attempts=2)
    assert job.error is not None
    assert (job.error.code, job.attempt) == (Code.ATTEMPTS_EXHAUSTED, 2)
    await scene.clean([])


@pytest.mark.parametrize("told_by", ["socket", "history"])
async def test_thousands_of_outputs(scene: Scene, told_by: str) -> None:
    scene.says(*(named(f"{n}.png") for n in range(5000)))
    scene.sim.faults.silence_socket(told_by == "history")
    await scene.refused()
    assert not [one for one in scene.sim.record.requests if one.path == "/view"]


async def test_a_flood_of_messages(scene: Scene) -> None:
    scene.sim.faults.flood_outputs("SaveImage", 6000)
    scene.sim.faults.lose_frames(types=("execution_success",))
    await scene.refused()


async def test_more_files_than_the_tier_allows(scene: Scene) -> None:
    job = await scene.refused(
        Code.OUTPUT_LIMIT_EXCEEDED,
        graph={
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 8, "height": 8, "batch_size": 3, "color": 0},
            },
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        },
        output=OutputOptions(files=2),
    )
    assert job.error is not None
    assert job.error.message == "The job gave 3 files, of at most 2."


async def test_more_bytes_than_the_tier_allows_leave_no_file_behind(scene: Scene) -> None:
    """The first file was stored already."""
    noise = Image.effect_noise((64, 64), 90)
    out = io.BytesIO()
    noise.save(out, "PNG")
    scene.says(named("a.png"), named("b.png"))
    scene.sim.faults.serve_content(out.getvalue())
    size = len(out.getvalue())
    job = await scene.refused(Code.OUTPUT_LIMIT_EXCEEDED, output=OutputOptions(bytes=size + size // 2))
    assert job.error is not None
    assert job.error.message == f"The job gave more than {size + size // 2} bytes."
    assert (await scene.run(output=OutputOptions(bytes=2 * size))).state is State.SUCCEEDED


async def test_a_file_that_is_found_bad_leaves_no_other_behind(scene: Scene) -> None:
    scene.says(named("a.png"), named("b.mp4"))
    scene.sim.faults.serve_content(png())
    await scene.refused()


async def test_a_larger_file_than_any_that_is_stored(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path / "data", sim.url, artifact_limit=2048) as service:
        await online(service)
        sim.faults.serve_content(b"\0" * 4096)
        scene = Scene(tmp_path / "data", sim, service)
        scene.says(named("a.bin"))
        job = await scene.refused(Code.OUTPUT_LIMIT_EXCEEDED)
        assert job.error is not None
        assert job.error.message == "The job gave a file of more than 2048 bytes."


def say_text(sim: Simulator, *texts: str) -> dict[str, Any]:
    """A graph of a node that says each of these."""
    sim.faults.answer_output("PreviewAny", {"text": list(texts)})
    return {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "x"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


async def test_texts_count_as_bytes(scene: Scene) -> None:
    graph = say_text(scene.sim, "é" * 600)
    await scene.refused(Code.OUTPUT_LIMIT_EXCEEDED, graph=graph, output=OutputOptions(bytes=1199))
    assert (await scene.run(graph, output=OutputOptions(bytes=1200))).state is State.SUCCEEDED


async def test_a_long_text_is_cut_and_says_so(scene: Scene) -> None:
    graph = say_text(scene.sim, "x" * (files.MAX_TEXT + 1), *["y" * 60_000] * 10)
    job = await scene.run(graph)
    assert job.state is State.SUCCEEDED
    first, *others = job.values["2"]
    assert first == "x" * (files.MAX_TEXT - 1) + "…"
    assert sum(map(len, others)) <= files.MAX_TEXTS - files.MAX_TEXT


async def test_many_nodes_with_long_texts(scene: Scene) -> None:
    """What one may say times their number would stand in one row."""
    graph = say_text(scene.sim, *["y" * 65_000] * 4)
    for number in range(10, 16):
        graph[f"{number}"] = graph["2"]
    await scene.refused(Code.OUTPUT_LIMIT_EXCEEDED, graph=graph)


async def test_a_text_that_is_too_large_to_be_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket breaks at such a frame, and history would tell the same, again and again."""
    monkeypatch.setattr(transport, "MAX_ANSWER", 24 * MEGABYTE)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.3)
    graph = say_text(scene.sim, "x" * (40 * MEGABYTE))
    job = await scene.refused(graph=graph)
    assert job.error is not None
    assert job.error.message == "The backend told more of the prompt than is read."


async def test_history_that_is_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.05)
    scene.sim.faults.silence_socket()
    scene.sim.faults.garble_history()
    job = await scene.refused()
    assert job.error is not None
    assert job.error.message == "The backend's history of the prompt cannot be read."


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("EmptyImage", "width", 128),
        ("EmptyImage", "color", 255),
        ("SaveImage", "filename_prefix", "cui/other"),
    ],
)
async def test_another_graph_in_history(scene: Scene, node: str, name: str, value: Any) -> None:
    scene.sim.faults.rewrite_input(node, name, value)
    scene.sim.faults.silence_socket()
    job = await scene.refused()
    assert job.error is not None
    assert job.error.message == "The backend ran another graph than it was sent."


async def test_other_nodes_in_history(scene: Scene) -> None:
    def more(graph: dict[str, Any]) -> dict[str, Any]:
        return {**graph, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}

    scene.sim.faults.rewrite_graph(more)
    scene.sim.faults.silence_socket()
    await scene.refused()


async def test_outputs_of_a_node_that_the_graph_does_not_have(scene: Scene) -> None:
    """Told by the socket, as long as the prompt runs."""

    def more(graph: dict[str, Any]) -> dict[str, Any]:
        return {**graph, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}

    scene.sim.faults.rewrite_graph(more)
    scene.sim.faults.lose_frames(types=("execution_success",))
    job = await scene.refused()
    assert job.error is not None
    assert job.error.message == "The backend gave outputs of a node that the graph does not have."


async def test_values_that_comfyui_converts_are_no_other_graph(scene: Scene) -> None:
    graph = flat_picture("SaveImage", filename_prefix="x")
    graph["1"]["inputs"] |= {"width": "64", "height": 64.0, "color": 20.7}
    scene.sim.faults.silence_socket()
    assert (await scene.run(graph)).state is State.SUCCEEDED


async def test_nothing_at_all(scene: Scene) -> None:
    scene.says()
    await scene.refused()
