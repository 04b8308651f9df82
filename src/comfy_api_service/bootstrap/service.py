"""Both roles in one process."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from comfy_api_service.bootstrap.api import Service, build_api
from comfy_api_service.bootstrap.delivering import deliverer
from comfy_api_service.bootstrap.parts import background, open_hook, parts
from comfy_api_service.bootstrap.worker import build_worker, placed
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.settings import Settings


@asynccontextmanager
async def service(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """Everything in one process.

    Raises `HookUnusable`, `DataFolderInUse`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    async with (
        open_hook(settings) as hook,
        placed(settings) as (worker_id, place),
        parts(settings, clock or SystemClock(), role="serve") as on,
        contextlib.AsyncExitStack() as stack,
    ):
        driving = await build_worker(on, worker_id, place, settings.comfyui_url, stack)
        delivering = await deliverer(on, stack)
        ready = await build_api(on, hook, driving, delivering, stack)
        background(stack, "worker", driving.run)
        stack.push_async_callback(ready.drain)
        yield ready
