"""The estimated start: from counters and measured durations, within a quarter of what happens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.stack import FAST, ended, online, order, running, submit

from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.submission import Accepted, GraphRequest, JobOptions, Order
from comfy_api_service.simulator import Simulator
from comfy_api_service.simulator.settings import DEFAULT_MODELS

STEPS = 8
STEADY = replace(FAST, seconds_per_step=0.025)


@pytest.mark.sqlite
async def test_the_estimated_start_of_fifty_jobs_is_within_a_quarter(tmp_path: Path) -> None:
    async with Simulator(STEADY) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        measured = [(await submit(service, order(seed=n, steps=STEPS))).job_id for n in range(20)]
        for job_id in measured:
            await ended(service, job_id)
        await service.pool.refresh()
        accepted = [await submit(service, order(seed=100 + n, steps=STEPS)) for n in range(50)]
        assert [a.place.position for a in accepted[2:] if a.place] == sorted(
            a.place.position for a in accepted[2:] if a.place
        )
        one_job = STEPS * STEADY.seconds_per_step
        wrong = []
        for one in accepted:
            assert one.place is not None
            assert one.place.start_at is not None
            done = await ended(service, one.job_id)
            assert done.started_at is not None
            estimated, real = one.place.start_at - done.queued_at, done.started_at - done.queued_at
            if abs(estimated - real) > max(0.25 * real, one_job):
                wrong.append((round(estimated, 2), round(real, 2)))
        assert not wrong
    check(tmp_path)


def txt2img(seed: int, prompt: str, side: int) -> dict[str, Any]:
    return {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": DEFAULT_MODELS["checkpoints"][0]},
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": side, "height": side, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["2", 0],
                "latent_image": ["3", 0],
                "seed": seed,
                "steps": STEPS,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }


@pytest.mark.sqlite
async def test_after_twenty_runs_of_a_kind_the_cost_of_a_graph_is_within_a_quarter(tmp_path: Path) -> None:
    """Texts and seeds differ; a graph of another size is another kind, reckoned by its pixels until it is known."""

    async def sent(seed: int, side: int) -> Accepted:
        asked = GraphRequest(txt2img(seed, f"prompt {seed}", side))
        return await service.services.submitter.submit(LOCAL, Order(asked, JobOptions(), str(seed).encode()))

    async with Simulator(STEADY) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        for job_id in [(await sent(n, 64)).job_id for n in range(20)]:
            await ended(service, job_id)
        await service.pool.refresh()
        accepted = await sent(100, 64)
        done = await ended(service, accepted.job_id)
        assert accepted.cost is not None
        assert done.generation_time is not None
        assert accepted.cost.seconds == pytest.approx(done.generation_time, rel=0.25)
        larger = await sent(101, 128)
        assert larger.cost is not None
        assert larger.cost.pixel_steps == 4 * accepted.cost.pixel_steps
        assert larger.cost.seconds == pytest.approx(4 * accepted.cost.seconds, rel=0.25)
        await ended(service, larger.job_id)
    check(tmp_path)
