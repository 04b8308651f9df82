"""Every workflow that comes with the service runs, and gives a picture of the right size."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.integration.api.test_workflows import run
from tests.support.api import Client, connected
from tests.support.pictures import png
from tests.support.stack import FAST, online, running

from comfy_api_service.services.ready_made import ready_made
from comfy_api_service.simulator import Simulator

PROMPT: dict[str, Any] = {"prompt": "a lighthouse at dawn"}
SMALL: dict[str, Any] = {**PROMPT, "width": 64, "height": 128, "steps": 2}
PICTURE = (96, 64)
CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "controlnet": ({**SMALL, "control_strength": 0.5, "end": 0.8}, (64, 128)),
    "image-to-image": ({**PROMPT, "steps": 2, "strength": 0.5}, PICTURE),
    "inpainting": ({**PROMPT, "steps": 2}, PICTURE),
    "resizing": ({"factor": 0.5, "method": "bicubic"}, (48, 32)),
    "text-to-image-flux": (SMALL, (64, 128)),
    "text-to-image-sd15": (SMALL, (64, 128)),
    "text-to-image-sd3": (SMALL, (64, 128)),
    "text-to-image-sdxl": (SMALL, (64, 128)),
    "upscaling": ({}, (384, 256)),
}


FAMILIES = {
    "controlnet": "v1-5-pruned-emaonly.safetensors",
    "image-to-image": "v1-5-pruned-emaonly.safetensors",
    "inpainting": "v1-5-pruned-emaonly.safetensors",
    "text-to-image-sd15": "v1-5-pruned-emaonly.safetensors",
    "text-to-image-sd3": "sd3_medium_incl_clips_t5xxlfp8.safetensors",
    "text-to-image-sdxl": "sd_xl_base_1.0.safetensors",
}
"""The checkpoint that each takes of those that the simulator has."""


@pytest.fixture(params=["0.3.64", "0.8.0"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with (
        Simulator(replace(FAST, protocol=request.param)) as sim,
        running(tmp_path, sim.url) as service,
        connected(service.app) as client,
    ):
        await online(service)
        yield client


def test_none_is_left_out() -> None:
    assert CASES.keys() == ready_made().keys()


@pytest.mark.sqlite
@pytest.mark.parametrize("name", CASES)
async def test_it_runs(client: Client, name: str) -> None:
    inputs, size = CASES[name]
    whole = (await client.get(f"/api/v1/workflows/{name}")).json()
    for n, parameter in enumerate(one for one in whole["parameters"] if one["type"] == "image"):
        upload = await client.post("/api/v1/upload", files={"file": png(n, size=PICTURE)})
        inputs = {**inputs, parameter["name"]: upload.json()["upload_id"]}

    job = await run(client, {"inputs": inputs}, f"/api/v1/workflows/{name}/execute")
    assert job["status"] == "succeeded", job["error"]
    (artifact,) = job["result"]["artifacts"]
    if family := FAMILIES.get(name):
        assert job["params"]["inputs"]["model"] == family, "not the first there is, which is another family's"
    assert artifact["node_id"] == whole["outputs"][0]["node"]
    content = (await client.get(f"/api/v1/jobs/{job['job_id']}/result")).content
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", size)
    again = await client.post("/api/v1/generate", json={"workflow_id": name, "inputs": inputs})
    assert again.status_code == 201, again.text
