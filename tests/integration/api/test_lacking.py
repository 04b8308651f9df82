"""Two backends, of which each lacks something else: refusals say which lacks what."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.api import SMALL, Client, connected
from tests.support.stack import FAST, online, running

from comfy_api_service.simulator import Simulator

JOBS = "/api/v1/jobs"
MODEL, OTHER = "dreamy.safetensors", "plain.safetensors"
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": MODEL}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 2]}},
    "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
}
pytestmark = pytest.mark.sqlite


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """comfyui-1 has the model and neither sampler nor picture, comfyui-2 the other way round."""
    lacking = frozenset({"KSampler", "EmptyImage"})
    async with (
        Simulator(replace(FAST, models={"checkpoints": (MODEL, OTHER)}, without_nodes=lacking)) as one,
        Simulator(replace(FAST, models={"checkpoints": (OTHER,)})) as two,
        running(tmp_path, one.url, two.url) as service,
    ):
        await online(service, 2)
        async with connected(service.app) as client:
            yield client


async def test_a_graph_that_no_single_backend_can_run(client: Client) -> None:
    answer = await client.post(JOBS, json={"workflow": GRAPH})
    assert answer.status_code == 422
    (found,) = answer.json()["error"]["details"]["errors"]
    assert "no backend that has all the rest has this" in found["message"]
    lacked = {"NODE_NOT_AVAILABLE": ["comfyui-1"], "MODEL_NOT_FOUND": ["comfyui-2"]}
    assert found["lacked_by"] == lacked[found["code"]]


async def test_what_nobody_has_is_lacked_by_all(client: Client) -> None:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}}
    nobody_has = {**GRAPH, "1": loader}
    answer = await client.post(JOBS, json={"workflow": nobody_has})
    found = {one["code"]: one for one in answer.json()["error"]["details"]["errors"]}["MODEL_NOT_FOUND"]
    assert "no backend has this model" in found["message"]
    assert found["lacked_by"] == ["comfyui-1", "comfyui-2"]


async def test_a_generation_that_no_single_backend_can_run(client: Client) -> None:
    answer = await client.post(JOBS, json={**SMALL, "model": MODEL})
    assert answer.status_code == 422
    lacking = {one["backend"]: one for one in answer.json()["error"]["details"]["backends"]}
    assert lacking["comfyui-1"]["models"] == []
    assert "KSampler" in lacking["comfyui-1"]["nodes"]
    assert lacking["comfyui-2"] == {"backend": "comfyui-2", "nodes": [], "models": [f"checkpoints/{MODEL}"]}
    assert (await client.get(JOBS)).json()["jobs"] == []
