import asyncio
import time
from typing import Any

import aiohttp
import pytest
from tests.unit.simulator.client import LIMIT, Client, eventually, fast, run
from tests.unit.simulator.graphs import Graph, flat, text_to_image

from comfy_api_service.simulator import Simulator
from comfy_api_service.simulator.faults import REMOTE, Faults


async def test_death_cuts_everything_and_a_restart_remembers_nothing() -> None:
    async with Simulator(fast()) as simulator, Client(simulator.url) as client:
        await client.connect()
        finished = await run(simulator, client, text_to_image())
        simulator.faults.stall()
        running = await client.submit(text_to_image(seed=2))
        await client.submit(text_to_image(seed=3))
        await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
        await simulator.faults.die()
        assert not simulator.alive
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/queue")
        while client.frames[-1].type not in {"CLOSED", "CLOSE", "ERROR"}:
            await client.receive()
        assert simulator.record.prompts[running][0].outcome == "killed"
        await simulator.faults.restart()
        assert (await client.get("/history"))[1] == {}
        assert (await client.get("/queue"))[1] == {"queue_running": [], "queue_pending": []}
        assert (await client.get(f"/history/{finished}"))[1] == {}
        _, body = await client.try_submit(text_to_image())
        assert body["number"] == 0
        await simulator.idle()
        assert simulator.record.nodes_run["KSampler"] == 3


async def test_a_request_in_flight_at_death_gets_no_answer(simulator: Simulator, client: Client) -> None:
    simulator.faults.slow(30)
    asking = asyncio.create_task(client.get("/queue"))
    await eventually(lambda: simulator.record.requests)
    await simulator.faults.die()
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(asking, LIMIT)


async def test_a_hanging_server_accepts_and_answers_nothing_until_it_goes_on(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    simulator.faults.hang()
    asking = asyncio.create_task(client.get("/queue"))
    await client.socket.ping()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.socket.receive(), 0.05)
    simulator.faults.resume()
    assert (await asyncio.wait_for(asking, LIMIT))[0] == 200


async def test_a_hanging_server_runs_nothing(simulator: Simulator, client: Client) -> None:
    simulator.faults.stall(after=1)
    prompt_id = await client.submit(text_to_image(steps=3))
    await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
    simulator.faults.hang()
    simulator.faults.stall(on=False)
    with pytest.raises(TimeoutError):
        await simulator.idle(0.1)
    simulator.faults.resume()
    await simulator.idle()
    assert (await client.entry(prompt_id))["status"]["completed"]


async def test_a_silent_socket_stays_open_and_the_work_goes_on(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.silence_socket()
    prompt_id = await run(simulator, client, flat())
    await client.drain()
    assert client.told("status", "executed")[1:] == []
    assert (await client.entry(prompt_id))["status"]["completed"]
    simulator.faults.silence_socket(on=False)
    await run(simulator, client, flat(2))
    await client.until("executed")


async def test_sockets_can_be_cut_while_the_server_lives(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.close_sockets()
    assert (await client.receive()).type in {"CLOSED", "CLOSE", "ERROR"}
    assert (await client.get("/queue"))[0] == 200


async def test_frames_can_be_lost_by_kind_and_number(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.lose_frames(1, ["executed"])
    await run(simulator, client, flat(1))
    await run(simulator, client, flat(2))
    await client.drain()
    assert len(client.told("executed")) == 1
    assert len(client.told("execution_success")) == 2


async def test_frames_can_be_repeated(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.repeat_frames(types=["execution_success"])
    await run(simulator, client, flat())
    await client.drain()
    assert len(client.told("execution_success")) == 2
    assert len(client.told("execution_start")) == 1


async def test_frames_can_come_in_another_order(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.reorder_frames(1, ["execution_start"])
    await run(simulator, client, flat())
    await client.until("execution_success")
    kinds = [f.type for f in client.frames]
    assert kinds.index("execution_cached") + 1 == kinds.index("execution_start")


async def test_a_held_frame_comes_even_if_nothing_follows(simulator: Simulator, client: Client) -> None:
    await client.connect()
    simulator.faults.reorder_frames(None, ["executing"])
    await run(simulator, client, flat())
    while client.told("executing")[-1:] == [] or client.told("executing")[-1]["node"] is not None:
        await client.receive()


async def test_history_and_queue_can_be_forgotten(simulator: Simulator, client: Client) -> None:
    prompt_id = await run(simulator, client, flat())
    simulator.faults.forget_history()
    assert (await client.get(f"/history/{prompt_id}"))[1] == {}
    simulator.faults.accept_and_run_nothing()
    await client.submit(flat(2))
    simulator.faults.forget_queue()
    assert (await client.get("/queue"))[1]["queue_pending"] == []


async def test_a_zombie_accepts_and_runs_nothing(simulator: Simulator, client: Client) -> None:
    simulator.faults.accept_and_run_nothing()
    prompt_id = await client.submit(flat())
    queue = (await client.get("/queue"))[1]
    assert [p[1] for p in queue["queue_pending"]] == [prompt_id]
    assert queue["queue_running"] == []
    simulator.faults.accept_and_run_nothing(on=False)
    await simulator.idle()
    assert simulator.record.times_executed(prompt_id) == 1


async def test_answers_can_be_slow(simulator: Simulator, client: Client) -> None:
    simulator.faults.slow(0.1)
    begun = time.monotonic()
    await client.get("/queue")
    assert time.monotonic() - begun >= 0.1


async def test_an_answer_can_break_off_in_the_middle(simulator: Simulator, client: Client) -> None:
    prompt_id = await run(simulator, client, flat())
    simulator.faults.halve_responses(1, "/view")
    assert (await client.get("/queue"))[0] == 200
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.files(prompt_id)
    assert len(await client.files(prompt_id)) == 1


async def test_a_prompt_can_be_accepted_without_an_answer(simulator: Simulator, client: Client) -> None:
    simulator.faults.drop_answer_after_accepting()
    with pytest.raises(aiohttp.ClientError):
        await client.try_submit(flat(), "00000000-0000-4000-8000-000000000001")
    await simulator.idle()
    assert (await client.entry("00000000-0000-4000-8000-000000000001"))["status"]["completed"]
    assert (await client.try_submit(flat(2)))[0] == 200


async def test_answers_can_be_errors(simulator: Simulator, client: Client) -> None:
    simulator.faults.answer_errors(2, 503)
    assert [(await client.get("/queue"))[0] for _ in range(3)] == [503, 503, 200]


async def test_memory_runs_out_once_and_unloads_the_models(simulator: Simulator, client: Client) -> None:
    simulator.faults.out_of_memory("KSampler")
    failed = await client.entry(await run(simulator, client, text_to_image()))
    error = failed["status"]["messages"][-1][1]
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert error["node_id"] == "3"
    assert "TIPS" in error["exception_message"]
    again = await client.entry(await run(simulator, client, text_to_image()))
    assert again["status"]["completed"]
    assert simulator.record.model_loads == 2


async def test_a_node_can_fail_always(simulator: Simulator, client: Client) -> None:
    simulator.faults.fail_node("VAEDecode", "no such luck", "ValueError")
    for seed in (1, 2):
        entry = await client.entry(await run(simulator, client, text_to_image(seed=seed)))
        error = entry["status"]["messages"][-1][1]
        assert (error["exception_type"], error["exception_message"]) == ("ValueError", "no such luck\n")
    simulator.faults.heal()
    assert (await client.entry(await run(simulator, client, text_to_image())))["status"]["completed"]


async def test_a_graph_can_be_rewritten(simulator: Simulator, client: Client) -> None:
    def without_save(graph: Graph) -> Graph:
        graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        return graph

    simulator.faults.rewrite_graph(without_save)
    entry = await client.entry(await run(simulator, client, flat()))
    assert entry["prompt"][2]["2"]["class_type"] == "PreviewImage"
    simulator.faults.rewrite_input("EmptyImage", "color", 99)
    entry = await client.entry(await run(simulator, client, flat()))
    assert entry["prompt"][2]["1"]["inputs"]["color"] == 99


async def test_a_stalled_prompt_answers_to_nothing_but_goes_on_later(
    simulator: Simulator, client: Client
) -> None:
    await client.connect()
    simulator.faults.stall(after=2)
    prompt_id = await client.submit(text_to_image(steps=5))
    await asyncio.wait_for(simulator.faults.stalled(), LIMIT)
    await client.drain()
    assert [p["value"] for p in client.told("progress")] == [1, 2]
    assert (await client.get("/queue"))[1]["queue_running"][0][1] == prompt_id
    simulator.faults.stall(on=False)
    await simulator.idle()
    assert (await client.entry(prompt_id))["status"]["completed"]


async def test_deleted_outputs_are_gone_though_the_cache_names_them(
    simulator: Simulator, client: Client
) -> None:
    await run(simulator, client, flat())
    await simulator.faults.delete_outputs()
    prompt_id = await run(simulator, client, flat())
    (file,) = (await client.entry(prompt_id))["outputs"]["2"]["images"]
    assert (await client.get("/view", **file))[0] == 404


async def test_every_fault_can_be_asked_for_over_http_but_those_that_take_functions_or_bytes() -> None:
    methods = {n for n in vars(Faults) if not n.startswith("_") and callable(getattr(Faults, n))}
    asked_by_the_server = {"take_drop", "take_error", "take_half"}
    by_hand = {"rewrite_graph", "serve_content", "serve_endlessly", "stalled"}
    assert methods - set(REMOTE) == asked_by_the_server | by_hand


async def test_faults_over_http() -> None:
    async with Simulator(fast(control=True)) as simulator, Client(simulator.url) as client:
        arguments: dict[str, Any] = {"node_class": "EmptyImage", "message": "asked for", "times": 1}
        assert await client.post("/_simulator/faults/fail_node", arguments) == (200, {"ok": True})
        entry = await client.entry(await run(simulator, client, flat()))
        assert entry["status"]["messages"][-1][1]["exception_message"] == "asked for\n"
        assert (await client.post("/_simulator/faults/nonsense"))[0] == 404
        assert (await client.post("/_simulator/faults/slow", {"minutes": 1}))[0] == 400
        assert (await client.post("/_simulator/faults/hang"))[0] == 200
        assert (await client.post("/_simulator/faults/resume"))[0] == 200
        record = (await client.get("/_simulator/record"))[1]
        assert record["executions"] == 1
        assert record["max_queue"] == 1


async def test_faults_are_not_offered_unless_asked_for(client: Client) -> None:
    assert (await client.get("/_simulator/record"))[0] == 404
