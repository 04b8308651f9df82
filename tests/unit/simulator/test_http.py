import asyncio
import io
import json
import uuid
from typing import Any

import aiohttp
import pytest
from PIL import Image
from tests.unit.simulator.client import LIMIT, Client, eventually, fast, run
from tests.unit.simulator.graphs import flat, text_to_image

from comfy_api_service.simulator import DEFAULT_MODELS, Simulator


def png(color: str = "red", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (16, 16), color).save(out, "PNG")
    return out.getvalue()


async def upload(
    client: Client, content: bytes, name: str, path: str = "/upload/image", **fields: str
) -> Any:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", content, filename=name)
    for key, value in fields.items():
        form.add_field(key, value)
    async with client.http.post(client.url + path, data=form) as answer:
        return answer.status, json.loads(await answer.read() or b"null")


async def test_the_same_name_with_other_content_gets_a_new_name(client: Client) -> None:
    names = [
        (await upload(client, content, "in.png"))[1]["name"]
        for content in (png(), png(), png("blue"), png("lime"))
    ]
    assert names == ["in.png", "in.png", "in (1).png", "in (2).png"]
    assert (await upload(client, png("blue"), "in.png", overwrite="true"))[1]["name"] == "in.png"
    assert (await client.get("/view", filename="in.png", type="input"))[1] == png("blue")


@pytest.mark.parametrize(
    ("name", "fields"),
    [("x.png", {"subfolder": "../../x"}), ("../../x.png", {}), ("", {})],
)
async def test_nothing_is_written_outside(client: Client, name: str, fields: dict[str, str]) -> None:
    assert (await upload(client, png(), name, **fields))[0] == 400


async def test_an_uploaded_picture_is_offered_to_load(simulator: Simulator, client: Client) -> None:
    await upload(client, png(), "mine.png")
    _, info = await client.get("/object_info/LoadImage")
    assert "mine.png" in info["LoadImage"]["input"]["required"]["image"][0]
    graph = flat()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
    assert (await client.entry(await run(simulator, client, graph)))["status"]["completed"]


async def test_a_mask_becomes_the_transparency_of_a_picture(client: Client) -> None:
    await upload(client, png(), "in.png")
    reference = json.dumps({"filename": "in.png", "type": "input"})
    mask = png("#00000040", "RGBA")
    status, body = await upload(client, mask, "masked.png", "/upload/mask", original_ref=reference)
    assert (status, body["name"]) == (200, "masked.png")
    _, content = await client.get("/view", filename="masked.png", type="input")
    assert Image.open(io.BytesIO(content)).getpixel((0, 0)) == (255, 0, 0, 0x40)


@pytest.mark.parametrize(
    ("asked", "status", "media_type"),
    [
        ({"filename": "example.png", "type": "input"}, 200, "image/png"),
        ({"filename": "example.png [input]"}, 200, "image/png"),
        ({"filename": "example.png", "type": "input", "preview": "webp;80"}, 200, "image/webp"),
        ({"filename": "example.png", "type": "input", "preview": "jpeg;80"}, 200, "image/jpeg"),
        ({"filename": "example.png", "type": "input", "preview": "jpeg"}, 200, "image/jpeg"),
        ({"filename": "example.png", "type": "input", "preview": "tiff"}, 200, "image/webp"),
        ({"filename": "example.png", "type": "input", "channel": "rgb"}, 200, "image/png"),
        ({"filename": "example.png", "type": "input", "channel": "a"}, 200, "image/png"),
        ({"filename": "example.png"}, 404, None),
        ({"filename": "example.png", "type": "nowhere"}, 400, None),
        ({"filename": "example.png", "type": "input", "subfolder": "../.."}, 403, None),
        ({"filename": "../example.png", "type": "input"}, 400, None),
        ({"filename": "/etc/hostname", "type": "input"}, 400, None),
        ({"filename": ""}, 400, None),
        ({}, 404, None),
    ],
)
async def test_view(client: Client, asked: dict[str, str], status: int, media_type: str | None) -> None:
    async with client.http.get(f"{client.url}/view", params=asked) as answer:
        content = await answer.read()
        assert answer.status == status
        if media_type:
            assert answer.content_type == media_type
            assert Image.open(io.BytesIO(content)).size == (256, 256)


@pytest.mark.parametrize(
    "path", ["/queue", "/object_info", "/system_stats", "/prompt", "/models", "/history"]
)
async def test_every_path_is_there_with_and_without_api(client: Client, path: str) -> None:
    assert await client.get(path) == await client.get(f"/api{path}")


async def test_models_are_told_everywhere_alike(client: Client) -> None:
    info = (await client.get("/object_info"))[1]
    checkpoints = list(DEFAULT_MODELS["checkpoints"])
    assert (await client.get("/models/checkpoints"))[1] == checkpoints
    assert info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] == checkpoints
    kind, options = info["UpscaleModelLoader"]["input"]["required"]["model_name"]
    assert (kind, options["options"]) == ("COMBO", list(DEFAULT_MODELS["upscale_models"]))
    assert (await client.get("/embeddings"))[1] == ["easynegative"]


async def test_there_may_be_no_models_at_all() -> None:
    async with Simulator(fast(models={})) as simulator, Client(simulator.url) as client:
        assert (await client.get("/models/checkpoints"))[1] == []
        assert (await client.try_submit(text_to_image()))[0] == 400


async def test_a_later_socket_takes_the_client_id_over(simulator: Simulator, client: Client) -> None:
    await client.connect()
    async with Client(simulator.url, client.client_id) as later:
        await later.connect()
        await run(simulator, client, flat())
        await later.drain()
        assert len(later.told("executed")) == 1
        await client.drain()
        assert client.told("executed") == []


async def test_the_close_of_the_earlier_socket_silences_the_later_one(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    async with Client(simulator.url, client.client_id) as later:
        await later.connect()
        await client.disconnect()
        await eventually(lambda: client.client_id not in simulator.engine.hub.clients)
        await run(simulator, client, flat())
        await later.drain()
        assert later.told("executed") == []


async def test_frames_go_to_the_client_that_asked_and_status_to_all(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    async with Client(simulator.url) as other:
        await other.connect()
        await run(simulator, client, flat())
        await other.drain()
        assert {f.type for f in other.frames} == {"status", "PONG"}


async def test_without_a_client_id_everybody_sees_progress(simulator: Simulator, client: Client) -> None:
    await client.connect()
    await client.post("/prompt", {"prompt": text_to_image()})
    await simulator.idle()
    await client.drain()
    assert len(client.told("progress")) == 2
    assert client.told("executed", "execution_success") == []


async def test_interrupt_stops_the_named_prompt_alone(simulator: Simulator, client: Client) -> None:
    simulator.faults.stall(after=1)
    prompt_id = await client.submit(text_to_image(steps=30))
    await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
    assert (await client.post("/interrupt", {"prompt_id": str(uuid.uuid4())}))[0] == 200
    assert not simulator.engine.life.interrupt
    assert (await client.post("/interrupt", {"prompt_id": prompt_id}))[0] == 200
    simulator.faults.stall(on=False)
    await simulator.idle()
    entry = await client.entry(prompt_id)
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_interrupt_without_an_id_stops_whatever_runs(simulator: Simulator, client: Client) -> None:
    simulator.faults.stall()
    prompt_id = await client.submit(text_to_image())
    await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
    async with client.http.post(f"{client.url}/interrupt") as answer:
        assert answer.status == 200
    simulator.faults.stall(on=False)
    await simulator.idle()
    assert simulator.record.prompts[prompt_id][0].outcome == "interrupted"


async def test_an_interrupt_while_nothing_runs_harms_no_later_prompt(
    simulator: Simulator, client: Client
) -> None:
    await client.post("/interrupt", {})
    assert (await client.entry(await run(simulator, client, flat())))["status"]["completed"]


async def test_the_queue_goes_by_number(simulator: Simulator, client: Client) -> None:
    simulator.faults.accept_and_run_nothing()
    ids = [await client.submit(flat(i)) for i in range(2)]
    ids.append(await client.submit(flat(2), front=True))
    ids.append(await client.submit(flat(3), number=0.5))
    pending = [p[1] for p in (await client.get("/queue"))[1]["queue_pending"]]
    assert pending == [ids[2], ids[0], ids[3], ids[1]]
    await client.post("/queue", {"delete": [ids[0]]})
    await client.post("/queue", {"clear": True})
    assert (await client.get("/prompt"))[1] == {"exec_info": {"queue_remaining": 0}}


async def test_history_keeps_the_newest() -> None:
    async with Simulator(fast(history_size=3)) as simulator, Client(simulator.url) as client:
        ids = [await run(simulator, client, flat(i)) for i in range(6)]
        kept = list((await client.get("/history"))[1])
        assert kept == ids[-4:]
        assert list((await client.get("/history", max_items="2"))[1]) == ids[-2:]
        assert list((await client.get("/history", max_items="1", offset="1"))[1]) == [kept[1]]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"5", b'{"prompt": 5}', b'{"prompt": {"1": 5}}', b'{"prompt": null}']
)
async def test_malformed_submissions_give_500(client: Client, body: bytes) -> None:
    async with client.http.post(f"{client.url}/prompt", data=body) as answer:
        assert answer.status == 500


async def test_jobs_tell_of_every_state(simulator: Simulator, client: Client) -> None:
    done = await run(simulator, client, flat())
    simulator.faults.fail_node("EmptyImage")
    failed = await run(simulator, client, flat(9))
    simulator.faults.heal()
    simulator.faults.stall()
    running = await client.submit(text_to_image())
    await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
    waiting = await client.submit(flat(3))
    states = {}
    for prompt_id in (done, failed, running, waiting):
        states[prompt_id] = (await client.get(f"/api/jobs/{prompt_id}"))[1]["status"]
    assert list(states.values()) == ["completed", "failed", "in_progress", "pending"]
    assert (await client.get(f"/api/jobs/{uuid.uuid4()}"))[0] == 404
    listed = (await client.get("/api/jobs", status="completed,pending", limit="1"))[1]
    assert listed["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
    for bad in ({"status": "odd"}, {"limit": "0"}, {"limit": "x"}, {"sort_by": "x"}, {"sort_order": "x"}):
        assert (await client.get("/api/jobs", **bad))[0] == 400
    simulator.faults.stall(on=False)
    await simulator.idle()


async def test_the_older_version_has_no_jobs() -> None:
    async with Simulator(fast(protocol="0.3.64")) as simulator, Client(simulator.url) as client:
        assert (await client.get("/api/jobs"))[0] == 404


async def test_newer_servers_take_lower_case_uuids_once() -> None:
    async with Simulator(fast(newer=True)) as simulator, Client(simulator.url) as client:
        assert (await client.try_submit(flat(), "my-own-id"))[0] == 400
        assert (await client.try_submit(flat(), str(uuid.uuid4()).upper()))[0] == 400
        prompt_id = await run(simulator, client, flat())
        assert (await client.try_submit(flat(), prompt_id))[0] == 409
        assert simulator.record.times_executed(prompt_id) == 1


async def test_newer_servers_refuse_files_outside_the_input_folder() -> None:
    graph = flat()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "../../../../etc/hostname"}}
    async with Simulator(fast(newer=True)) as simulator, Client(simulator.url) as client:
        assert (await client.try_submit(graph))[0] == 400


async def test_newer_servers_cancel_in_one_step() -> None:
    async with Simulator(fast(newer=True)) as simulator, Client(simulator.url) as client:
        simulator.faults.stall()
        running = await client.submit(text_to_image())
        await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
        waiting = await client.submit(flat())
        for prompt_id, expected in ((waiting, True), (running, True), (str(uuid.uuid4()), False)):
            assert await client.post(f"/api/jobs/{prompt_id}/cancel") == (200, {"cancelled": expected})
        simulator.faults.stall(on=False)
        await simulator.idle()
        assert (await client.get(f"/api/jobs/{running}"))[1]["status"] == "cancelled"
        assert (await client.post("/api/jobs/cancel", {"job_ids": [str(uuid.uuid4())]}))[0] == 404


async def test_the_record_tells_what_was_seen(simulator: Simulator, client: Client) -> None:
    prompt_id = await run(simulator, client, flat())
    seen = [(r.method, r.path) for r in simulator.record.requests]
    assert seen == [("POST", "/prompt")]
    assert simulator.record.times_executed(prompt_id) == 1
    assert simulator.record.accepted[prompt_id] == 1
    assert simulator.record.max_queue == 1


async def test_deleting_the_only_pending_prompt_tells_the_status_twice(
    simulator: Simulator, client: Client
) -> None:
    simulator.faults.accept_and_run_nothing()
    await client.connect()
    prompt_id = await client.submit(flat())
    await client.post("/queue", {"delete": [prompt_id]})
    await client.drain()
    remaining = [s["status"]["exec_info"]["queue_remaining"] for s in client.told("status")]
    assert remaining == [0, 1, 0, 0]
