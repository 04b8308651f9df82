"""Simple generation that begins from pictures: image to image, inpainting, ControlNets; whatever names the picture."""

import base64
from typing import Any

import pytest
from tests.integration.api.test_workflows import ended, run
from tests.support.api import SMALL, Client
from tests.support.pictures import png

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db.jobs import graph_of
from comfy_api_service.domain.ids import LOCAL_ACCOUNT

JOBS = "/api/v1/jobs"


async def uploaded(client: Client, seed: int = 1) -> str:
    answer = await client.post("/api/v1/upload", files={"file": png(seed, size=(96, 64))})
    found: str = answer.json()["upload_id"]
    return found


async def graph(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    found = await service.db.read(lambda tx: graph_of(tx, LOCAL_ACCOUNT, job["job_id"]))
    assert found is not None
    return found


def classes(found: dict[str, Any]) -> list[str]:
    return [node["class_type"] for node in found.values()]


async def test_a_picture_is_begun_from(client: Client, service: Service) -> None:
    upload = await uploaded(client)
    job = await run(client, {**SMALL, "image": upload, "strength": 0.4, "batch_size": 2})
    assert job["status"] == "succeeded", job["error"]
    assert len(job["result"]["artifacts"]) == 2
    assert (job["params"]["image"], job["params"]["strength"]) == (upload, 0.4)
    made = await graph(service, job)
    (sampler,) = [node for node in made.values() if node["class_type"] == "KSampler"]
    assert sampler["inputs"]["denoise"] == 0.4
    assert {"LoadImage", "ImageScale", "VAEEncode", "RepeatLatentBatch"} <= set(classes(made))
    assert "EmptyLatentImage" not in classes(made)


async def test_a_mask_and_controlnets(client: Client, service: Service) -> None:
    models = (await client.get("/models", params={"kind": "controlnet"})).json()["models"]
    image, mask = await uploaded(client), await uploaded(client, 2)
    controls = [{"model": models[0]["name"], "image": image, "strength": 0.5, "end": 0.8}]
    job = await run(client, {**SMALL, "image": image, "mask": mask, "controlnets": controls})
    assert job["status"] == "succeeded", job["error"]
    made = await graph(service, job)
    assert {"SetLatentNoiseMask", "ImageToMask", "ControlNetApplyAdvanced"} <= set(classes(made))
    assert classes(made).count("LoadImage") == 3


@pytest.mark.parametrize("how", ["data", "job", "job with index"])
async def test_whatever_names_it_the_picture_becomes_an_upload(client: Client, how: str) -> None:
    first = await run(client, SMALL)
    names = {
        "data": "data:image/png;base64," + base64.b64encode(png(3)).decode(),
        "job": first["job_id"],
        "job with index": f"{first['job_id']}/0",
    }
    job = await run(client, {**SMALL, "image": names[how]})
    assert job["status"] == "succeeded", job["error"]
    assert job["params"]["image"].startswith("upl_")
    again = await client.post(f"{JOBS}/{job['job_id']}/retry")
    assert (await ended(client, again.json()["job_id"]))["params"] == job["params"]


async def test_the_same_request_and_seed_give_the_same_graph_and_the_same_picture(
    client: Client, service: Service
) -> None:
    body = {**SMALL, "image": await uploaded(client), "seed": 11}
    jobs = [await run(client, body) for _ in range(2)]
    assert await graph(service, jobs[0]) == await graph(service, jobs[1])
    pictures = [(await client.get(f"{JOBS}/{job['job_id']}/result")).content for job in jobs]
    assert pictures[0] == pictures[1]
    other = await run(client, {**body, "image": await uploaded(client, 9)})
    assert (await client.get(f"{JOBS}/{other['job_id']}/result")).content != pictures[0]


@pytest.mark.parametrize(
    "name",
    [
        "upl_00000000000000000000000000", "job_00000000000000000000000000", "mine.png", "../x.png", "file:///etc/passwd",
        "http://example.com/x.png", "https://127.0.0.1/x.png", "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png;base64,AAAA",
    ],
)  # fmt: skip
@pytest.mark.sqlite
async def test_what_names_no_picture_is_refused_before_anything_is_queued(client: Client, name: str) -> None:
    answer = await client.post(JOBS, json={**SMALL, "image": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "INVALID_INPUT"), answer.text
    assert (await client.get(JOBS)).json()["jobs"] == []


@pytest.mark.sqlite
async def test_strength_and_mask_need_an_image(client: Client) -> None:
    for field, value in (("strength", 0.5), ("mask", "upl_00000000000000000000000000")):
        answer = await client.post(JOBS, json={**SMALL, field: value})
        assert answer.json()["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.sqlite
async def test_a_controlnet_that_nobody_has_is_refused_with_the_nearest(client: Client) -> None:
    controls = [{"model": "no such net.pth", "image": await uploaded(client)}]
    answer = await client.post(JOBS, json={**SMALL, "controlnets": controls})
    assert answer.json()["error"]["details"]["kind"] == "controlnet"
