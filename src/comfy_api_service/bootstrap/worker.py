"""The role of a worker: it drives backends, and delivers webhooks."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from comfy_api_service.bootstrap import folder
from comfy_api_service.bootstrap.delivering import deliverer
from comfy_api_service.bootstrap.parts import Parts, background, open_database, parts
from comfy_api_service.comfyui.transport import Transport, open_http
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.checking import Rules
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.domain.compilation import Compiled, compile_generation, compiled_graph
from comfy_api_service.domain.ids import new_worker_id
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.domain.params import generation_from, is_of_graph, source_from
from comfy_api_service.media.pipeline import Intake
from comfy_api_service.services.graphs import Graphs
from comfy_api_service.services.pool import Pool
from comfy_api_service.settings import Settings
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.collect import Collector
from comfy_api_service.worker.driver import Driver
from comfy_api_service.worker.parking import Parking
from comfy_api_service.worker.preparation import Preparation
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.shelf import Shelf
from comfy_api_service.worker.upkeep import Upkeep
from comfy_api_service.worker.worker import Worker

if TYPE_CHECKING:
    from comfy_api_service.telemetry.tracing import Tracing

LEASE_CONNECTIONS: Final = 2


@dataclass(slots=True)
class WorkerService:
    """A process that drives backends."""

    worker: Worker
    metrics: Metrics
    grace: float
    _drained: bool = False

    async def drain(self) -> None:
        """Take no more work, let running jobs finish for the grace time."""
        if not self._drained:
            self._drained = True
            await self.worker.drain(self.grace)


@asynccontextmanager
async def worker(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[WorkerService]:
    """A worker alone; it drives the backends that the settings name, or any that it can reach if they name none.

    Raises `DataFolderInUse`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    named = settings.comfyui_url if "comfyui_url" in settings.model_fields_set else None
    async with (
        placed(settings) as (worker_id, place),
        parts(settings, clock or SystemClock(), role="worker") as on,
        contextlib.AsyncExitStack() as stack,
    ):
        driving = await build_worker(on, worker_id, place, named, stack)
        await on.pool.refresh()
        await deliverer(on, stack)
        background(stack, "worker", driving.run)
        background(stack, "pool", on.pool.run)
        ready = WorkerService(driving, on.metrics, settings.shutdown_grace)
        stack.push_async_callback(ready.drain)
        yield ready


@asynccontextmanager
async def placed(settings: Settings) -> AsyncIterator[tuple[str, folder.Place]]:
    """A worker's id and its part of the data folder."""
    worker_id = new_worker_id()
    alone = settings.postgres_url is None
    folder.make(settings.data_dir)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(folder.place(settings.data_dir, worker_id, alone=alone))
        if alone:
            stack.enter_context(folder.only_worker(settings.database_path.with_suffix(".lock")))
        yield worker_id, place


async def build_worker(
    on: Parts,
    worker_id: str,
    place: folder.Place,
    urls: tuple[str, ...] | None,
    stack: contextlib.AsyncExitStack,
) -> Worker:
    """A worker that is registered, and does not run yet."""
    settings, clock, metrics = on.settings, on.clock, on.metrics
    shared = settings.postgres_url is not None
    pictures = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="pictures"))
    make = _makers(on.tracing)
    reporter = make.reporter(on.db, on.signals, on.announcer, clock, metrics)
    parking, carrier = None, None
    if not on.embedded_storage:
        parked = LocalStorage(place.folder / "parked", on.signer)
        stack.callback(parked.close)
        shelf = Shelf(parked, clock, metrics, limit_bytes=settings.parked_limit)
        await shelf.load()
        parking = Parking(on.storage, shelf)
        carrier = make.carrier(
            on.storage,
            shelf,
            parking,
            reporter,
            clock,
            metrics,
            worker_id=worker_id,
            retention=LOCAL.limits.retention,
            timeout=settings.parked_timeout,
        )
    driving = Worker(
        worker_id,
        urls=urls,
        node_id=settings.node_id,
        open_own=(lambda: open_database(settings, role="lease", connections=LEASE_CONNECTIONS))
        if shared
        else None,
        http=await stack.enter_async_context(open_http()),
        db=on.db,
        signals=on.signals,
        clock=clock,
        metrics=metrics,
        reporter=reporter,
        settler=Settler(
            make.collector(
                parking or on.storage, Intake(pictures), metrics, limit_bytes=settings.artifact_limit
            ),
            reporter,
            clock,
            parking=parking,
            retention=LOCAL.limits.retention,
            job_timeout=settings.job_timeout,
        ),
        carrier=carrier,
        upkeep=Upkeep(
            on.db,
            on.storage,
            reporter,
            clock,
            metrics,
            unservable_timeout=settings.unservable_timeout,
            job_retention=settings.job_retention,
        ),
        preparation=Preparation(
            _late_compiler(on.pool, on.metrics, settings.default_model),
            lambda: on.pool.view.complete,
            reporter,
            clock,
        ),
        storage=on.storage,
        concurrency=settings.worker_concurrency,
        job_timeout=settings.job_timeout,
        stall_timeout=settings.stall_timeout,
        make_driver=make.driver,
        make_transport=make.transport,
    )
    await driving.register(place.previous)
    return driving


@dataclass(frozen=True, slots=True)
class _Makers:
    """The plain classes, unless traces are on."""

    reporter: Callable[..., Reporter] = Reporter
    collector: Callable[..., Collector] = Collector
    carrier: Callable[..., Carrier] = Carrier
    driver: Callable[..., Driver] = Driver
    transport: Callable[..., Transport] = Transport


def _makers(tracing: "Tracing | None") -> _Makers:
    if tracing is None:
        return _Makers()
    from comfy_api_service.comfyui.traced import TracedTransport  # noqa: PLC0415
    from comfy_api_service.worker import traced  # noqa: PLC0415

    return _Makers(
        reporter=partial(traced.TracedReporter, tracing),
        collector=partial(traced.TracedCollector, tracing),
        carrier=partial(traced.TracedCarrier, tracing),
        driver=partial(traced.TracedDriver, tracing),
        transport=partial(TracedTransport, tracing),
    )


def _late_compiler(
    pool: Pool, metrics: Metrics, default_model: str | None
) -> Callable[[Mapping[str, Any]], Compiled]:
    """Compiles a job that was accepted before any inventory was known."""

    def compile_late(params: Mapping[str, Any]) -> Compiled:
        if is_of_graph(params):
            graph = params["graph"]
            classes = {
                str(node["class_type"]) for node in graph.values()
            }  # allowed at the door; files are not yet
            policy = NodePolicy.open() if params["node_policy"] == "open" else NodePolicy.core(classes)
            checked = Graphs(pool, Rules(policy=policy), metrics).check_now(LOCAL, graph)
            return compiled_graph(checked, source_from(params), known=True)
        return compile_generation(
            generation_from(params),
            pool.view.catalogue,
            default_model=default_model,
            seed_source=lambda: secrets.randbits(64),
        )

    return compile_late
