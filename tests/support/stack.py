"""The real service in one process, over a real database and the simulator, for tests of the engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.schema import lay, url_of

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.bootstrap.service import service as opened
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.generation import GenerationRequest
from comfy_api_service.domain.job import TERMINAL, Job, State
from comfy_api_service.domain.submission import Accepted, JobOptions, Order
from comfy_api_service.settings import Settings
from comfy_api_service.simulator import Simulator, SimulatorSettings

LIMIT = 30.0
"""Seconds after which a wait has failed; nothing waits that long when it works."""
MODEL = "v1-5-pruned-emaonly.safetensors"

FAST = SimulatorSettings(seconds_per_step=0.002, seconds_per_load=0.0, cleanup_seconds=0.0)
SLOW = SimulatorSettings(seconds_per_step=0.25, seconds_per_load=0.0, cleanup_seconds=0.0)


@asynccontextmanager
async def running(
    folder: Path, *urls: str, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Service]:
    """The service; its drain is cut short, since tests leave jobs behind on purpose."""
    url = url_of(folder)
    if url is None:
        lay(folder)
    given = {"data_dir": folder, "comfyui_url": urls, "shutdown_grace": 0, "database_url": url, **settings}
    async with opened(Settings(_env_file=None, **given), clock=clock) as service:
        yield service


async def online(service: Service, count: int = 1) -> None:
    """Wait until backends take work."""

    async def enough() -> bool:
        view = await service.pool.refresh()
        return view.online >= count and view.catalogue.known

    await until(enough)


def order(
    prompt: str = "a lighthouse at dawn",
    *,
    seed: int | None = None,
    steps: int = 4,
    model: str | None = MODEL,
    key: str | None = None,
    batch_size: int = 1,
    **options: Any,
) -> Order:
    generation = GenerationRequest(
        prompt=prompt, seed=seed, steps=steps, model=model, batch_size=batch_size, width=64, height=64
    )
    body = f"{prompt}|{seed}|{steps}|{model}|{batch_size}".encode()
    return Order(generation, JobOptions(**options), body, idempotency_key=key)


async def submit(service: Service, wanted: Order | None = None) -> Accepted:
    return await service.services.submitter.submit(LOCAL, wanted or order())


async def job(service: Service, job_id: str) -> Job:
    return (await service.services.jobs.get(LOCAL, job_id)).job


async def ended(service: Service, job_id: str, limit: float = LIMIT) -> Job:
    """The job at its end."""
    view = await service.services.watcher.wait(LOCAL, job_id, timeout=limit)
    assert view.job.state in TERMINAL, f"still {view.job.state} after {limit} s"
    return view.job


async def reached(service: Service, job_id: str, *states: State) -> Job:
    """The job once it is in one of the states."""

    async def there() -> bool:
        return (await job(service, job_id)).state in states

    await until(there)
    return await job(service, job_id)


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], limit: float = LIMIT) -> None:
    """Poll a condition."""
    async with asyncio.timeout(limit):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def queue_length(sim: Simulator) -> int:
    """Prompts that the simulated backend has, running and pending."""
    return len(sim.engine.queue)


def interrupt(sim: Simulator) -> None:
    """Stop whatever runs, as somebody at the backend's own page would."""
    sim.engine.interrupt(None)
