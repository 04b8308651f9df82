"""Whole graphs as jobs, and stored workflows: kept, versioned, run, looked into."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.api import Client, connected
from tests.support.people import AUTH, person
from tests.support.pictures import png
from tests.support.stack import online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph.problem import ENOUGH
from comfy_api_service.services import workflows
from comfy_api_service.simulator import Simulator
from comfy_api_service.simulator.settings import DEFAULT_MODELS

JOBS, WORKFLOWS = "/api/v1/jobs", "/api/v1/workflows"
GRAPH: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255},
        "_meta": {"title": "$colour.color"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../../x"}},
}
CREATED = {"name": "One colour", "description": "A plain picture.", "workflow": GRAPH}


async def ended(client: Client, job_id: str) -> dict[str, Any]:
    async def over() -> bool:
        found.update((await client.get(f"{JOBS}/{job_id}")).json())
        return found["status"] in ("succeeded", "failed", "canceled")

    found: dict[str, Any] = {}
    await until(over)
    return found


async def run(client: Client, body: dict[str, Any], path: str = JOBS) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return await ended(client, answer.json()["job_id"])


def faults(body: Any) -> list[tuple[str, str | None, str | None]]:
    return [(one["code"], one["node_id"], one["input"]) for one in body["error"]["details"]["errors"]]


async def test_a_graph_is_a_job(client: Client) -> None:
    job = await run(client, {"workflow": GRAPH, "labels": {"of": "graph"}})
    assert job["status"] == "succeeded", job["error"]
    (artifact,) = job["result"]["artifacts"]
    assert (artifact["width"], artifact["height"], artifact["media_type"]) == (96, 64, "image/png")
    assert job["params"] == {"workflow": {"nodes": 2, "outputs": ["2"]}}
    picture = await client.get(f"{JOBS}/{job['job_id']}/result")
    assert picture.content.startswith(b"\x89PNG")


async def test_every_problem_is_told_at_once_and_nothing_is_queued(client: Client) -> None:
    bad = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 0, "height": 64, "batch_size": 1, "color": "red"},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        "3": {"class_type": "NoSuchNode", "inputs": {}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}},
    }
    answer = await client.post(JOBS, json={"workflow": bad})
    assert answer.status_code == 422
    found = faults(answer.json())
    assert {
        ("INVALID_GRAPH", "1", "width"),
        ("INVALID_GRAPH", "1", "color"),
        ("INVALID_GRAPH", "4", "images"),
    } <= {*found}
    lacking = next(one for one in answer.json()["error"]["details"]["errors"] if one["node_id"] == "3")
    assert lacking["code"] == "NODE_NOT_AVAILABLE"
    assert len(lacking["lacked_by"]) == 1
    assert (await client.get(JOBS)).json()["jobs"] == []


async def test_checks_are_counted_by_what_came_of_them(client: Client) -> None:
    async def counted() -> list[float]:
        text = (await client.get("/metrics")).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("comfyui_graphs_"))
        return [
            float(lines[f'comfyui_graphs_checked_total{{outcome="{one}"}}'])
            for one in ("accepted", "refused")
        ]

    assert await counted() == [0, 0]
    await client.post(JOBS, json={"workflow": GRAPH})
    await client.post(JOBS, json={"workflow": {"1": {}}})
    assert await counted() == [1, 1]


async def test_fields_of_two_kinds_are_refused(client: Client) -> None:
    for body in ({"workflow": GRAPH, "prompt": "x"}, {"workflow_id": "resizing", "prompt": "x"}):
        answer = await client.post(JOBS, json=body)
        assert answer.json()["error"]["details"]["errors"][0]["field"] == "prompt"


async def test_a_graph_can_be_run_again(client: Client) -> None:
    first = await run(client, {"workflow": GRAPH})
    again = await client.post(f"{JOBS}/{first['job_id']}/retry")
    assert again.status_code == 202
    job = await ended(client, again.json()["job_id"])
    assert job["status"] == "succeeded"
    assert job["params"] == first["params"]


async def test_a_key_replays_whatever_became_of_what_the_request_names(client: Client) -> None:
    upload = (await client.post("/api/v1/upload", files={"file": png()})).json()["upload_id"]
    stored = (await client.post(WORKFLOWS, json=CREATED)).json()["workflow_id"]
    bodies: list[dict[str, Any]] = [
        {"workflow_id": "resizing", "inputs": {"image": upload}},
        {"prompt": "x", "width": 64, "height": 64, "steps": 1, "image": upload},
    ]
    jobs = []
    for number, body in enumerate(bodies):
        answer = await client.post(JOBS, json=body, headers={"Idempotency-Key": f"k{number}"})
        jobs.append(answer.json()["job_id"])
        await ended(client, jobs[-1])
    assert (await client.delete(f"/api/v1/uploads/{upload}")).status_code == 204
    for number, body in enumerate(bodies):
        again = await client.post(JOBS, json=body, headers={"Idempotency-Key": f"k{number}"})
        assert (again.status_code, again.json().get("job_id")) == (200, jobs[number])
        assert again.headers["idempotent-replayed"] == "true"
        other = await client.post(
            JOBS, json={**body, "priority": 1}, headers={"Idempotency-Key": f"k{number}"}
        )
        assert other.json()["error"]["code"] == "INVALID_INPUT"
        fresh = await client.post(JOBS, json=body)
        assert fresh.json()["error"]["code"] == "INVALID_INPUT"
    of_stored = {"workflow_id": stored}
    first = await client.post(JOBS, json=of_stored, headers={"Idempotency-Key": "stored"})
    assert (await client.delete(f"{WORKFLOWS}/{stored}")).status_code == 204
    again = await client.post(JOBS, json=of_stored, headers={"Idempotency-Key": "stored"})
    assert (again.status_code, again.json()["job_id"]) == (200, first.json()["job_id"])


@pytest.mark.sqlite
async def test_what_json_cannot_hold_is_refused_wherever_it_stands(client: Client) -> None:
    """Also where nothing looks at it: two requests that differ there are two."""
    codes = []
    for strange in ("1e999", '"\\ud800"'):
        body = f'{{"workflow": {{"1": {{"_meta": {{"x": {strange}}}}}}}}}'
        answer = await client.post(JOBS, content=body, headers={"Content-Type": "application/json"})
        codes.append(answer.json()["error"]["code"])
    assert codes == ["VALIDATION_ERROR", "BAD_REQUEST"]


async def test_a_batch_may_hold_requests_of_each_kind(client: Client) -> None:
    requests = [{"prompt": "x", "width": 64, "height": 64, "steps": 1}, {"workflow": GRAPH},
                {"workflow_id": "nothing-of-this-name"}, {"workflow": {"1": {}}}]  # fmt: skip
    answer = await client.post("/api/v1/generate/batch", json={"requests": requests})
    assert answer.status_code == 201, answer.text
    jobs = answer.json()["jobs"]
    assert [one["status"] for one in jobs] == ["completed", "completed", "failed", "failed"]
    assert [jobs[n]["error"]["code"] for n in (2, 3)] == ["NOT_FOUND", "INVALID_GRAPH"]


async def test_generate_waits_for_a_graph_too(client: Client) -> None:
    answer = await client.post("/api/v1/generate", json={"workflow": GRAPH})
    assert answer.status_code == 201, answer.text
    assert answer.json()["images"][0]["width"] == 96


async def test_a_graph_that_came_before_any_inventory_is_checked_by_the_worker(
    tmp_path: Path, sim: Simulator
) -> None:
    address = sim.url
    await sim.kill()
    bad = {**GRAPH, "3": {"class_type": "NoSuchNode", "inputs": {}}}
    async with running(tmp_path, address) as service, connected(service.app) as client:
        good = (await client.post(JOBS, json={"workflow": GRAPH})).json()["job_id"]
        other = (await client.post(JOBS, json={"workflow": bad})).json()["job_id"]
        await sim.revive()
        await online(service)
        assert (await ended(client, good))["status"] == "succeeded"
        failed = await ended(client, other)
        assert failed["error"]["code"] == "NODE_NOT_AVAILABLE"
        assert "graph" not in (await ended(client, good))["params"]


async def test_files_and_retries_of_what_came_before_any_inventory(tmp_path: Path, sim: Simulator) -> None:
    """Where the files stand is written when the graph is compiled: for later attempts, and whoever adopts it."""
    address = sim.url
    await sim.kill()
    async with running(tmp_path, address) as service, connected(service.app) as client:
        upload = (await client.post("/api/v1/upload", files={"file": png()})).json()["upload_id"]
        bodies: list[dict[str, Any]] = [
            {"prompt": "x", "width": 64, "height": 64, "steps": 1, "image": upload},
            {"workflow_id": "resizing", "inputs": {"image": upload}},
        ]
        jobs = [(await client.post(JOBS, json=body)).json()["job_id"] for body in bodies]
        shown = (await client.get(f"{JOBS}/{jobs[1]}")).json()["params"]
        assert shown.keys() == {"workflow_id", "version", "inputs"}
        canceled = (await client.post(JOBS, json=bodies[1])).json()["job_id"]
        assert (await client.post(f"{JOBS}/{canceled}/cancel")).status_code == 200
        again = await client.post(f"{JOBS}/{canceled}/retry")
        assert again.status_code == 202, again.text
        jobs.append(again.json()["job_id"])
        await sim.revive()
        await online(service)
        for job_id in jobs:
            job = await ended(client, job_id)
            assert job["status"] == "succeeded", job["error"]
            row = await service.db.read(
                lambda tx, job_id=job_id: tx.one(
                    "SELECT inputs, graph FROM jobs WHERE id = :id", {"id": job_id}
                )  # type: ignore[misc]
            )
            assert row is not None
            graph = orjson.loads(row["graph"])
            for node_id, name, upload_id in orjson.loads(row["inputs"]):
                assert graph[node_id]["inputs"][name] == upload_id == upload


# --- stored ----------------------------------------------------------------------------------------------


async def test_a_workflow_is_stored_run_changed_and_deleted(client: Client) -> None:
    made = await client.post(WORKFLOWS, json=CREATED)
    assert made.status_code == 201, made.text
    stored = made.json()
    path = f"{WORKFLOWS}/{stored['workflow_id']}"
    assert made.headers["location"] == path
    assert [one["name"] for one in stored["parameters"]] == ["colour", "width", "height", "batch_size"]
    assert stored["outputs"] == [{"name": "save_image", "node": "2"}]
    schema = (await client.get(f"{path}/schema")).json()
    assert schema["properties"]["colour"]["maximum"] == 0xFFFFFF

    job = await run(client, {"inputs": {"colour": 0xFF0000, "width": 128}}, f"{path}/execute")
    assert job["status"] == "succeeded", job["error"]
    assert job["result"]["artifacts"][0]["width"] == 128
    assert job["params"]["workflow_id"] == stored["workflow_id"]
    assert job["params"]["inputs"]["colour"] == 0xFF0000

    taller = {**GRAPH, "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "height": 256}}}
    changed = await client.put(path, json={**CREATED, "name": "Taller", "workflow": taller})
    assert (changed.json()["version"], changed.json()["name"]) == (2, "Taller")
    same = await client.put(path, json={**CREATED, "name": "Same", "workflow": taller})
    assert (same.json()["version"], same.json()["name"]) == (2, "Same")
    assert [one["version"] for one in (await client.get(f"{path}/versions")).json()["versions"]] == [2, 1]
    first = (await client.get(f"{path}/versions/1")).json()
    assert first["workflow"] == stored["workflow"]
    for version, height in ((1, 64), (None, 256)):
        job = await run(client, {"workflow_id": stored["workflow_id"], "version": version})
        assert job["result"]["artifacts"][0]["height"] == height
    listed = (await client.get(JOBS, params={"workflow_id": stored["workflow_id"]})).json()["jobs"]
    assert len(listed) == 3

    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.post(f"{path}/execute", json={})).status_code == 404
    again = (await client.get(JOBS, params={"workflow_id": stored["workflow_id"]})).json()["jobs"]
    assert [one["job_id"] for one in again] == [one["job_id"] for one in listed]


async def test_bad_inputs_are_refused_path_by_path(client: Client) -> None:
    stored = (await client.post(WORKFLOWS, json=CREATED)).json()
    answer = await client.post(
        f"{WORKFLOWS}/{stored['workflow_id']}/execute",
        json={"inputs": {"width": "wide", "height": 10**9, "nothing": 1}},
    )
    errors = answer.json()["error"]["details"]["errors"]
    assert {one["field"] for one in errors} == {"inputs.width", "inputs.height", "inputs.nothing"}


async def test_parameters_that_are_given_are_taken_as_they_are_and_must_fit(client: Client) -> None:
    parameter = {"name": "size", "type": "integer", "minimum": 16, "maximum": 512, "default": 32,
                 "targets": [{"node": "1", "input": "width"}, {"node": "1", "input": "height"}]}  # fmt: skip
    made = await client.post(WORKFLOWS, json={**CREATED, "parameters": [parameter], "outputs": []})
    stored = made.json()
    job = await run(client, {}, f"{WORKFLOWS}/{stored['workflow_id']}/execute")
    assert [job["result"]["artifacts"][0][side] for side in ("width", "height")] == [32, 32]
    wrong = {**parameter, "targets": [{"node": "7", "input": "width"}]}
    answer = await client.post(WORKFLOWS, json={**CREATED, "parameters": [wrong]})
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "parameters.0.targets.0.node"


async def test_lists_show_stored_ones_then_those_that_come_with_the_service(client: Client) -> None:
    ids = [(await client.post(WORKFLOWS, json=CREATED)).json()["workflow_id"] for _ in range(3)]
    found: list[str] = []
    cursor = None
    while True:
        page = (
            await client.get(WORKFLOWS, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        found += [one["workflow_id"] for one in page["workflows"]]
        assert len(page["workflows"]) <= 2
        if (cursor := page["next_cursor"]) is None:
            break
    assert found[:3] == ids[::-1]
    assert found[3:] == sorted(found[3:])
    assert "text-to-image-sd15" in found


async def test_inspecting_tells_all_and_stores_nothing(client: Client) -> None:
    graph = {
        **GRAPH,
        "3": {"class_type": "LoadImage", "inputs": {"image": "of another machine.png"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "b"}},
    }
    found = (await client.post(f"{WORKFLOWS}/inspect", json={"workflow": graph})).json()
    assert [one["name"] for one in found["parameters"]] == [
        "colour",
        "width",
        "height",
        "batch_size",
        "image",
    ]
    assert found["problems"] == []
    assert found["nodes"] == [
        {"class_type": "EmptyImage", "count": 1},
        {"class_type": "LoadImage", "count": 1},
        {"class_type": "SaveImage", "count": 2},
    ]
    assert [one["name"] for one in found["outputs"]] == ["save_image", "save_image_2"]
    broken = (await client.post(f"{WORKFLOWS}/inspect", json={"workflow": {**GRAPH, "9": 1}})).json()
    assert broken["problems"][0]["node_id"] == "9"
    stored = (await client.get(WORKFLOWS)).json()["workflows"]
    assert all(one["ready_made"] for one in stored)


async def test_a_picture_goes_in_by_a_parameter(client: Client) -> None:
    upload = await client.post("/api/v1/upload", files={"file": png(size=(40, 20))})
    job = await run(
        client,
        {"inputs": {"image": upload.json()["upload_id"], "factor": 3}},
        f"{WORKFLOWS}/resizing/execute",
    )
    assert job["status"] == "succeeded", job["error"]
    assert [job["result"]["artifacts"][0][side] for side in ("width", "height")] == [120, 60]
    missing = await client.post(f"{WORKFLOWS}/resizing/execute", json={"inputs": {}})
    assert missing.json()["error"]["details"]["errors"] == [
        {"field": "inputs.image", "message": "is required"}
    ]


# --- who may ---------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url, **AUTH) as service:
        await online(service)
        yield service


async def test_with_authentication_only_harmless_nodes_may_be_used_and_what_a_tier_lists(
    guarded: Service,
) -> None:
    ada = await person(guarded)
    listed = await person(guarded, overrides={"nodes": ["SaveLatent", "EmptyLatentImage"]})
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "x"}},
    }
    async with connected(guarded.app) as client:
        answer = await client.post(JOBS, json={"workflow": graph}, headers=ada.headers)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == Code.NODE_NOT_ALLOWED
        allowed = await client.post(JOBS, json={"workflow": graph}, headers=listed.headers)
        assert allowed.status_code == 202, allowed.text


async def test_a_job_beyond_the_work_of_a_tier_is_refused_before_it_is_queued(guarded: Service) -> None:
    small = await person(guarded, overrides={"pixel_steps": 64 * 64 * 4})
    async with connected(guarded.app) as client:
        client.headers.update(small.headers)
        body = {"prompt": "x", "width": 64, "height": 64, "steps": 4}
        taken = await client.post(JOBS, json=body)
        assert taken.status_code == 202
        assert taken.json()["cost"]["pixel_steps"] == 64 * 64 * 4
        refused = await client.post(JOBS, json={**body, "steps": 5})
        assert refused.json()["error"]["code"] == "COST_LIMIT_EXCEEDED"
        assert refused.json()["error"]["details"] == {"pixel_steps": 64 * 64 * 5, "limit": 64 * 64 * 4}


async def test_the_work_of_a_graph_is_that_of_the_picture_that_was_brought(guarded: Service) -> None:
    who = await person(guarded, overrides={"pixel_steps": 700 * 700 * 2})
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": DEFAULT_MODELS["checkpoints"][0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 1]}},
        "3": {"class_type": "LoadImage", "inputs": {"image": ""}},
        "4": {"class_type": "VAEEncode", "inputs": {"pixels": ["3", 0], "vae": ["1", 2]}},
        "5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0],
              "latent_image": ["4", 0], "seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler",
              "scheduler": "normal", "denoise": 0.5}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }  # fmt: skip
    async with connected(guarded.app) as client:
        client.headers.update(who.headers)
        answers = []
        for side in (640, 768):
            picture = png(size=(side, side))
            upload = (await client.post("/api/v1/upload", files={"file": picture})).json()["upload_id"]
            named = {**graph, "3": {"class_type": "LoadImage", "inputs": {"image": upload}}}
            answers.append(await client.post(JOBS, json={"workflow": named}))
        assert answers[0].status_code == 202, answers[0].text
        assert answers[0].json()["cost"]["pixel_steps"] == 640 * 640 * 2
        assert answers[1].json()["error"]["code"] == "COST_LIMIT_EXCEEDED"


async def test_more_files_than_a_tier_may_have_are_refused_and_more_bytes_fail_the_job(
    guarded: Service,
) -> None:
    two = {**GRAPH, "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "batch_size": 2}}}
    few = await person(guarded, overrides={"output_files": 1})
    small = await person(guarded, overrides={"output_bytes": 100})
    async with connected(guarded.app) as client:
        refused = await client.post(JOBS, json={"workflow": two}, headers=few.headers)
        assert refused.json()["error"]["code"] == "COST_LIMIT_EXCEEDED"
        assert refused.json()["error"]["details"] == {"files": 2, "limit": 1}
        client.headers.update(small.headers)
        job = await run(client, {"workflow": two})
        assert (job["status"], job["error"]["code"]) == ("failed", "OUTPUT_LIMIT_EXCEEDED")
        assert "more than 100 bytes" in job["error"]["message"]


async def test_administrators_publish_anybodys_and_nobody_else_does(guarded: Service) -> None:
    ada, bob = await person(guarded), await person(guarded)
    admin = await person(guarded, role=Role.ADMIN, scopes=tuple(Scope))
    async with connected(guarded.app) as client:
        own = (await client.post(WORKFLOWS, json=CREATED, headers=ada.headers)).json()["workflow_id"]
        path = f"{WORKFLOWS}/{own}"
        assert (await client.put(f"{path}/published", headers=ada.headers)).status_code == 403
        assert (await client.get(path, headers=bob.headers)).status_code == 404
        assert (await client.put(f"{path}/published", headers=admin.headers)).status_code == 204
        seen = await client.get(path, headers=bob.headers)
        assert (seen.json()["published"], seen.json()["own"]) == (True, False)
        client.headers.update(bob.headers)
        assert (await run(client, {}, f"{path}/execute"))["status"] == "succeeded"
        assert (await client.put(path, json=CREATED)).status_code == 404
        assert (await client.delete(path)).status_code == 404
        assert (await client.delete(f"{path}/published", headers=admin.headers)).status_code == 204
        assert (await client.get(path)).status_code == 404
        acts = await client.get("/admin/audit", headers=admin.headers)
        actions = [one["action"] for one in acts.json()["entries"]]
        assert {"workflow.publish", "workflow.unpublish"} <= set(actions)
        absent = f"{WORKFLOWS}/wfl_00000000000000000000000000/published"
        assert (await client.put(absent, headers=admin.headers)).status_code == 404


async def test_much_is_looked_into_beside_the_loop(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    plain = workflows._with_pictures

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return plain(*given)

    monkeypatch.setattr(workflows, "_with_pictures", noted)
    many = {
        str(n): {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": f"$p{n}"}}
        for n in range(1500)
    }
    answer = await client.post(f"{WORKFLOWS}/inspect", json={"workflow": many})
    assert answer.status_code == 200, answer.text
    await client.post(WORKFLOWS, json={**CREATED, "workflow": many})
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_a_check_that_ended_early_stores_nothing(client: Client) -> None:
    """A workflow may wait for its models, but not if they kept the check from seeing the rest."""

    def lacking(rows: int, loras: int) -> dict[str, Any]:
        """A graph of rows of LoRAs that no backend has."""
        graph: dict[str, Any] = {
            "c": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "none.safetensors"}},
            "t": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["c", 1]}},
            "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        }
        for row in range(rows):
            before = "c"
            for number in range(loras):
                inputs = {
                    "model": [before, 0], "lora_name": f"none{row}.safetensors", "strength_model": 1.0
                }  # fmt: skip
                before = f"l{row}_{number}"
                graph[before] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
            graph[f"k{row}"] = {
                "class_type": "KSampler",
                "inputs": {
                    "model": [before, 0], "positive": ["t", 0], "negative": ["t", 0], "latent_image": ["e", 0],
                    "seed": 1, "steps": 1, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
                    "denoise": 1.0,
                },
            }  # fmt: skip
            decoded = {"samples": [f"k{row}", 0], "vae": ["c", 2]}
            graph[f"d{row}"] = {"class_type": "VAEDecode", "inputs": decoded}
            graph[f"p{row}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"d{row}", 0]}}
        return graph

    few = await client.post(WORKFLOWS, json={**CREATED, "workflow": lacking(3, 200)})
    assert few.status_code == 201, few.text
    many = await client.post(WORKFLOWS, json={**CREATED, "workflow": lacking(5, 200)})
    assert many.status_code == 422
    error = many.json()["error"]
    assert (error["code"], error["details"]["count"]) == (Code.MODEL_NOT_FOUND, ENOUGH)
