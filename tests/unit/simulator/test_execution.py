import io
import json
import time
from collections.abc import Callable
from typing import Any

import filetype  # type: ignore[import-untyped]
import pytest
from PIL import Image
from tests.unit.simulator import graphs
from tests.unit.simulator.client import Client, fast, run
from tests.unit.simulator.graphs import SDXL, Graph, flat, node, text_to_image

from comfy_api_service.simulator import Simulator
from comfy_api_service.simulator.inventory import Inventory
from comfy_api_service.simulator.nodes import REGISTRY


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (text_to_image, (64, 64)),
        (graphs.with_lora, (128, 96)),
        (graphs.sd3, (128, 128)),
        (graphs.flux, (128, 128)),
        (graphs.image_to_image, (256, 256)),
        (graphs.inpaint, (256, 256)),
        (graphs.control_net, (64, 64)),
        (graphs.upscaled, (256, 256)),
        (graphs.high_resolution_fix, (128, 128)),
    ],
)
async def test_every_way_of_making_a_picture_gives_one_of_the_right_size(
    simulator: Simulator, client: Client, make: Callable[[], Graph], size: tuple[int, int]
) -> None:
    prompt_id = await run(simulator, client, make())
    entry = await client.entry(prompt_id)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (content,) = await client.files(prompt_id)
    assert (picture(content).size, picture(content).format) == (size, "PNG")


def test_every_node_class_has_a_function_or_passes_its_inputs_on() -> None:
    known = set(Inventory(fast(), []).classes)
    assert known - set(REGISTRY) == {"FreeU_V2", "ModelSamplingFlux", "ModelSamplingSD3"}
    assert set(REGISTRY) <= known


async def test_a_batch_gives_so_many_different_pictures(simulator: Simulator, client: Client) -> None:
    prompt_id = await run(simulator, client, text_to_image(count=3))
    pictures = await client.files(prompt_id)
    assert len({picture(p).tobytes() for p in pictures}) == 3
    images = (await client.entry(prompt_id))["outputs"]["9"]["images"]
    assert [i["filename"] for i in images] == [f"picture_0000{n}_.png" for n in (1, 2, 3)]


async def test_the_same_graph_on_another_server_gives_the_same_picture(
    client: Client, simulator: Simulator
) -> None:
    first = await client.files(await run(simulator, client, text_to_image()))
    async with Simulator(fast(protocol="0.3.64")) as other, Client(other.url) as second:
        again = await second.files(await run(other, second, text_to_image()))
    assert picture(first[0]).tobytes() == picture(again[0]).tobytes()


async def test_a_saved_picture_carries_the_graph(simulator: Simulator, client: Client) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}}}
    prompt_id = await run(simulator, client, flat(), extra_data=extra)
    text = picture((await client.files(prompt_id))[0]).text  # type: ignore[attr-defined]
    assert json.loads(text["prompt"]) == flat()
    assert json.loads(text["workflow"]) == {"id": "w"}


async def test_image_nodes_do_what_they_say(simulator: Simulator, client: Client) -> None:
    graph = {
        "1": node("EmptyImage", width=60, height=40, batch_size=2, color=0x102030),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("ImageFromBatch", image=["3", 0], batch_index=2, length=1),
        "5": node("ImageScale", image=["4", 0], upscale_method="area", width=30, height=0, crop="disabled"),
        "6": node("ImageCrop", image=["5", 0], width=10, height=10, x=25, y=15),
        "7": node("ImagePadForOutpaint", image=["6", 0], left=3, top=0, right=0, bottom=2, feathering=0),
        "8": node("MaskToImage", mask=["7", 1]),
        "9": node("ImageBlend", image1=["7", 0], image2=["8", 0], blend_factor=0.5, blend_mode="multiply"),
        "10": node("ImageToMask", image=["9", 0], channel="red"),
        "11": node("PreviewAny", source=["10", 0]),
        "12": node("SaveImage", images=["4", 0], filename_prefix="four"),
        "13": node("SaveImage", images=["7", 0], filename_prefix="seven"),
        "14": node("ImageScaleBy", image=["4", 0], upscale_method="lanczos", scale_by=2.0),
        "15": node("ImageBlur", image=["14", 0], blur_radius=2, sigma=1.0),
        "16": node("SaveImage", images=["15", 0], filename_prefix="blurred"),
    }
    prompt_id = await run(simulator, client, graph)
    outputs = (await client.entry(prompt_id))["outputs"]
    assert set(outputs) == {"11", "12", "13", "16"}
    found = {
        name: picture((await client.get("/view", **outputs[name]["images"][0]))[1])
        for name in ("12", "13", "16")
    }
    assert found["12"].getpixel((0, 0)) == (0xEF, 0xDF, 0xCF)
    assert found["13"].size == (3 + 5, 5 + 2)
    assert found["16"].size == (120, 80)


async def test_animations_and_films_are_what_their_names_say(simulator: Simulator, client: Client) -> None:
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=2, color=5),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("SaveAnimatedPNG", images=["3", 0], filename_prefix="a", fps=6.0, compress_level=4),
        "5": node(
            "SaveAnimatedWEBP",
            images=["3", 0],
            filename_prefix="b",
            fps=6.0,
            lossless=True,
            quality=80,
            method="default",
        ),
        "6": node("CreateVideo", images=["3", 0], fps=8.0),
        "7": node("SaveVideo", video=["6", 0], filename_prefix="c/d", format="mp4", codec="h264"),
        "8": node("SaveWEBM", images=["3", 0], filename_prefix="e", codec="vp9", fps=8.0, crf=32.0),
    }
    prompt_id = await run(simulator, client, graph)
    outputs = (await client.entry(prompt_id))["outputs"]
    assert all(o["animated"] == [True] for o in outputs.values())
    kinds = []
    for name in ("4", "5", "7", "8"):
        async with client.http.get(f"{client.url}/view", params=outputs[name]["images"][0]) as answer:
            content = await answer.read()
            assert filetype.guess_mime(content) in {answer.content_type, "image/apng"}
            kinds.append(answer.content_type)
    assert kinds == ["image/png", "image/webp", "video/mp4", "video/webm"]


async def test_a_rerun_answers_from_the_cache_with_the_earlier_files(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    first = await run(simulator, client, text_to_image())
    again = await run(simulator, client, text_to_image())
    assert (await client.entry(again))["outputs"] == (await client.entry(first))["outputs"]
    assert simulator.record.nodes_run["KSampler"] == 1
    await client.drain()
    assert set(client.told("execution_cached")[1]["nodes"]) == set(text_to_image())


async def test_a_changed_input_runs_its_node_and_what_depends_on_it(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    await run(simulator, client, text_to_image())
    graph = text_to_image()
    graph["9"]["inputs"]["filename_prefix"] = "other"
    await run(simulator, client, graph)
    assert (simulator.record.nodes_run["VAEDecode"], simulator.record.nodes_run["SaveImage"]) == (1, 2)


async def test_the_cache_holds_the_last_prompt_alone(simulator: Simulator, client: Client) -> None:
    for graph in (text_to_image(), flat(), text_to_image()):
        await run(simulator, client, graph)
    assert simulator.record.nodes_run["KSampler"] == 2


async def test_another_picture_under_the_same_name_is_loaded_anew(
    simulator: Simulator, client: Client
) -> None:
    graph = {
        "1": node("LoadImage", image="in.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    for color in ("red", "blue"):
        Image.new("RGB", (8, 8), color).save(simulator.files.root / "input" / "in.png")
        prompt_id = await run(simulator, client, graph)
        shown = picture((await client.files(prompt_id))[0]).getpixel((0, 0))
        assert shown == ((255, 0, 0) if color == "red" else (0, 0, 255))


async def test_without_client_id_the_newer_version_leaves_cached_outputs_out(
    simulator: Simulator, client: Client
) -> None:
    for expected in ({"2"}, set[str]()):
        _, body = await client.post("/prompt", {"prompt": flat()})
        await simulator.idle()
        assert set((await client.entry(body["prompt_id"]))["outputs"]) == expected


async def test_a_model_is_loaded_once_and_again_after_another(simulator: Simulator, client: Client) -> None:
    for seed, model in enumerate((graphs.SD15, graphs.SD15, SDXL, graphs.SD15)):
        await run(simulator, client, text_to_image(seed=seed, model=model))
    assert list(simulator.record.loads) == [graphs.SD15, SDXL, graphs.SD15]


async def test_more_resident_models_are_loaded_less_often() -> None:
    async with Simulator(fast(resident_models=2)) as simulator, Client(simulator.url) as client:
        for seed, model in enumerate((graphs.SD15, SDXL, graphs.SD15, SDXL)):
            await run(simulator, client, text_to_image(seed=seed, model=model))
        assert simulator.record.model_loads == 2


async def test_freeing_unloads_models_and_forgets_the_cache(simulator: Simulator, client: Client) -> None:
    await run(simulator, client, text_to_image())
    before = (await client.get("/system_stats"))[1]["devices"][0]["vram_free"]
    await client.post("/free", {"unload_models": True, "free_memory": True})
    await client.get("/queue")
    assert (await client.get("/system_stats"))[1]["devices"][0]["vram_free"] > before
    await run(simulator, client, text_to_image())
    assert simulator.record.model_loads == 2


async def test_memory_has_an_end(simulator: Simulator, client: Client) -> None:
    graph = flat()
    graph["1"]["inputs"] |= {"width": 16384, "height": 16384, "batch_size": 4096}
    entry = await client.entry(await run(simulator, client, graph))
    name, error = entry["status"]["messages"][-1]
    assert (name, error["exception_type"]) == ("execution_error", "RuntimeError")
    assert "4398046511104 bytes" in error["exception_message"]


@pytest.mark.parametrize(("start", "end", "steps"), [(0, 10_000, 4), (1, 3, 2), (4, 4, 0)])
async def test_the_advanced_sampler_takes_its_part_of_the_steps(
    simulator: Simulator, client: Client, start: int, end: int, steps: int
) -> None:
    await client.connect()
    graph = text_to_image()
    inputs = graph["3"]["inputs"]
    seed = inputs.pop("seed")
    del inputs["denoise"]
    inputs |= {"noise_seed": seed, "steps": 4, "add_noise": "enable", "return_with_leftover_noise": "disable"}
    inputs |= {"start_at_step": start, "end_at_step": end}
    graph["3"]["class_type"] = "KSamplerAdvanced"
    await run(simulator, client, graph)
    await client.drain()
    assert [p["max"] for p in client.told("progress")] == [steps] * steps


async def test_a_fixed_time_a_prompt_is_kept() -> None:
    settings = fast(seconds_per_prompt=0.15, seconds_per_step=5.0)
    async with Simulator(settings) as simulator, Client(simulator.url) as client:
        prompt_id = await run(simulator, client, text_to_image(steps=10))
        (execution,) = simulator.record.prompts[prompt_id]
        assert execution.ended is not None
        assert 0.14 < execution.ended - execution.started < 1.0


async def test_with_a_fixed_time_a_prompt_the_output_comes_at_its_end() -> None:
    settings = fast(seconds_per_prompt=0.15)
    async with Simulator(settings) as simulator, Client(simulator.url) as client:
        await client.connect()
        prompt_id = await client.submit(flat())
        await client.until("executed")
        (execution,) = simulator.record.prompts[prompt_id]
        assert time.monotonic() - execution.started > 0.14


async def test_fixed_output_draws_and_writes_nothing() -> None:
    async with Simulator(fast(fixed_output=b"\x89PNG fixed")) as simulator, Client(simulator.url) as client:
        prompt_id = await run(simulator, client, text_to_image(count=2))
        assert await client.files(prompt_id) == [b"\x89PNG fixed"] * 2
        assert list((simulator.files.root / "output").glob("**/*.png")) == []


async def test_a_picture_can_come_over_the_socket(simulator: Simulator, client: Client) -> None:
    await client.connect()
    graph = flat(count=2)
    graph["2"] = node("SaveImageWebsocket", images=["1", 0])
    prompt_id = await run(simulator, client, graph)
    await client.drain()
    pictures = client.told("binary")
    assert [p[:8] for p in pictures] == [bytes.fromhex("0000000100000002")] * 2
    assert picture(pictures[0][8:]).size == (64, 64)
    assert (await client.entry(prompt_id))["outputs"] == {}


@pytest.mark.parametrize(("features", "event"), [(False, 1), (True, 4)])
async def test_previews_come_in_the_form_that_the_client_can_read(features: bool, event: int) -> None:
    async with Simulator(fast(previews=True)) as simulator, Client(simulator.url) as client:
        await client.connect(features=features)
        prompt_id = await run(simulator, client, text_to_image(steps=3))
        await client.drain()
        shown = client.told("binary")
        assert [int.from_bytes(s[:4], "big") for s in shown] == [event] * 3
        if features:
            length = int.from_bytes(shown[0][4:8], "big")
            told: dict[str, Any] = json.loads(shown[0][8 : 8 + length])
            assert (told["prompt_id"], told["node_id"]) == (prompt_id, "3")
            assert picture(shown[0][8 + length :]).format == "JPEG"


async def test_a_prompt_may_switch_previews_off() -> None:
    async with Simulator(fast(previews=True)) as simulator, Client(simulator.url) as client:
        await client.connect()
        await run(simulator, client, text_to_image(), extra_data={"preview_method": "none"})
        await client.drain()
        assert client.told("binary") == []


async def test_a_file_is_sent_as_a_real_server_sends_it() -> None:
    """Seen on 0.3.64 and in the source of both: from the disk, with tag, date and ranges."""
    async with Simulator(fast()) as simulator, Client(simulator.url) as client:
        (simulator.files.root / "output" / "one.png").write_bytes(bytes(range(100)))
        url, named = f"{client.url}/view", {"filename": "one.png", "type": "output"}
        async with client.http.get(url, params=named) as answer:
            assert await answer.read() == bytes(range(100))
            assert answer.headers["Accept-Ranges"] == "bytes"
            tag = answer.headers["ETag"]
            assert answer.headers["Last-Modified"]
        async with client.http.get(url, params=named, headers={"Range": "bytes=10-19"}) as part:
            assert (part.status, await part.read()) == (206, bytes(range(10, 20)))
        async with client.http.get(url, params=named, headers={"If-None-Match": tag}) as same:
            assert same.status == 304


async def test_a_pretended_file_is_sent_the_same_way() -> None:
    async with Simulator(fast(fixed_output=b"\x89PNG fixed")) as simulator, Client(simulator.url) as client:
        simulator.files.pretend("one.png", "", "output")
        async with client.http.get(f"{client.url}/view", params={"filename": "one.png"}) as answer:
            assert await answer.read() == b"\x89PNG fixed"
            assert answer.headers["Accept-Ranges"] == "bytes"
