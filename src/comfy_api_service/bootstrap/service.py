"""The roles: API and worker in one process, or each by itself."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from comfy_api_service import __version__
from comfy_api_service.api.app import Api, build_app
from comfy_api_service.api.client_address import Trusted
from comfy_api_service.api.host_names import HostNames
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.services import ApiServices
from comfy_api_service.bootstrap import folder
from comfy_api_service.bootstrap.delivering import deliverer, sealer_of
from comfy_api_service.bootstrap.makers import makers
from comfy_api_service.bootstrap.parts import Parts, open_database, open_hook, parts, stop
from comfy_api_service.comfyui.transport import open_http
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.checking import Rules
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.domain.compilation import Compiled, compile_generation, compiled_graph
from comfy_api_service.domain.hook import Hook
from comfy_api_service.domain.ids import new_worker_id
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.domain.params import generation_from, is_of_graph, source_from
from comfy_api_service.media.pipeline import Intake
from comfy_api_service.outbound.fetch import Fetcher
from comfy_api_service.services.access import Access
from comfy_api_service.services.backends import Backends
from comfy_api_service.services.batches import Batches
from comfy_api_service.services.deliverer import Deliverer
from comfy_api_service.services.forever import forever
from comfy_api_service.services.graphs import Graphs
from comfy_api_service.services.health import Health
from comfy_api_service.services.inputs import Inputs
from comfy_api_service.services.keys import Keys
from comfy_api_service.services.logins import Logins
from comfy_api_service.services.models import Models
from comfy_api_service.services.overview import Overview
from comfy_api_service.services.passwords import Passwords
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.ready_made import ready_made
from comfy_api_service.services.results import Results
from comfy_api_service.services.rules import PromptRules
from comfy_api_service.services.throttle import Throttle
from comfy_api_service.services.tokens import AccessTokens
from comfy_api_service.services.uploads import Uploads
from comfy_api_service.services.usage import Usages
from comfy_api_service.services.users import Users, apply_tiers
from comfy_api_service.services.watch import Watcher
from comfy_api_service.services.webhooks import Webhooks
from comfy_api_service.services.workflows import Workflows
from comfy_api_service.settings import Settings
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.parking import Parking
from comfy_api_service.worker.preparation import Preparation
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.shelf import Shelf
from comfy_api_service.worker.upkeep import Upkeep
from comfy_api_service.worker.worker import Worker

LEASE_CONNECTIONS = 2


@dataclass(slots=True)
class Service:
    """A process that answers HTTP, with a worker beside it or without."""

    app: Api
    services: ApiServices
    pool: Pool
    db: Database
    grace: float
    driving: Worker | None = None
    unused_accounts: int = 0
    """Of people, where authentication is off."""
    _drained: bool = False

    @property
    def worker(self) -> Worker:
        """The worker of a process that has one."""
        if self.driving is None:
            raise LookupError("this process has no worker")
        return self.driving

    async def drain(self) -> None:
        """Take no more work, let running jobs finish for the grace time; then end streams with a reason."""
        if not self._drained:
            self._drained = True
            if self.driving is not None:
                await self.driving.drain(self.grace)
            self.app.drain()


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
async def service(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """Everything in one process.

    Raises `HookUnusable`, `DataFolderInUse`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    async with (
        open_hook(settings) as hook,
        _placed(settings) as (worker_id, place),
        parts(settings, clock or SystemClock(), role="serve") as on,
        contextlib.AsyncExitStack() as stack,
    ):
        driving = await _worker(on, worker_id, place, settings.comfyui_url, stack)
        delivering = await deliverer(on, stack)
        ready = await _api(on, hook, driving, delivering, stack)
        _run(stack, "worker", driving.run)
        stack.push_async_callback(ready.drain)
        yield ready


@asynccontextmanager
async def api(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """The API alone; workers elsewhere drive the backends.

    Raises `HookUnusable`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    async with (
        open_hook(settings) as hook,
        parts(settings, clock or SystemClock(), role="api") as on,
        contextlib.AsyncExitStack() as stack,
    ):
        ready = await _api(on, hook, None, None, stack)
        stack.push_async_callback(ready.drain)
        yield ready


@asynccontextmanager
async def worker(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[WorkerService]:
    """A worker alone; it drives the backends that the settings name, or any that it can reach if they name none.

    Raises `DataFolderInUse`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    named = settings.comfyui_url if "comfyui_url" in settings.model_fields_set else None
    async with (
        _placed(settings) as (worker_id, place),
        parts(settings, clock or SystemClock(), role="worker") as on,
        contextlib.AsyncExitStack() as stack,
    ):
        driving = await _worker(on, worker_id, place, named, stack)
        await on.pool.refresh()
        await deliverer(on, stack)
        _run(stack, "worker", driving.run)
        _run(stack, "pool", on.pool.run)
        ready = WorkerService(driving, on.metrics, settings.shutdown_grace)
        stack.push_async_callback(ready.drain)
        yield ready


@asynccontextmanager
async def _placed(settings: Settings) -> AsyncIterator[tuple[str, folder.Place]]:
    """A worker's id and its part of the data folder."""
    worker_id = new_worker_id()
    alone = settings.postgres_url is None
    folder.make(settings.data_dir)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(folder.place(settings.data_dir, worker_id, alone=alone))
        if alone:
            stack.enter_context(folder.only_worker(settings.database_path.with_suffix(".lock")))
        yield worker_id, place


def _run(stack: contextlib.AsyncExitStack, name: str, work: Callable[[], Any]) -> None:
    """In the background, until the stack is left."""
    stack.push_async_callback(stop, asyncio.create_task(forever(name, work), name=name))


async def _api(
    on: Parts,
    hook: Hook | None,
    driving: Worker | None,
    delivering: Deliverer | None,
    stack: contextlib.AsyncExitStack,
) -> Service:
    settings, db, signals, clock = on.settings, on.db, on.signals, on.clock
    graphs = Graphs(on.pool, Rules(policy=_policy(settings)), on.metrics)
    uploads = Uploads(
        db,
        on.storage,
        clock,
        stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="inputs")),
        on.metrics,
        folder=settings.data_dir,
        max_bytes=settings.max_upload_size,
        ttl=settings.upload_ttl,
    )
    fetcher = Fetcher(max_bytes=settings.max_upload_size, allow_private=settings.input_urls_allow_private)
    stack.callback(fetcher.close)
    throttle = Throttle(on.buckets)
    inputs = Inputs(db, uploads, on.storage, fetcher, throttle, clock, on.metrics)
    workflows = Workflows(db, graphs, on.pool, clock, ready_made())
    webhooks = Webhooks(
        db,
        clock,
        sealer_of(on),
        allow_private=settings.webhook_allow_private,
        nudge=(lambda: None) if delivering is None else delivering.look,
    )
    make = makers(on.tracing)
    submitter = make.submitter(
        db,
        Submissions(
            db,
            queue_limit=settings.queue_limit,
            far_from_limit=lambda: on.pool.far_from(settings.queue_limit),
            on_writing=signals.wake,
        ),
        on.pool,
        on.jobs,
        graphs,
        inputs,
        workflows,
        signals,
        clock,
        on.metrics,
        default_model=settings.default_model,
        rules=_prompt_rules(on, hook, graphs),
        check_webhook=webhooks.check_url,
    )
    watcher = Watcher(db, on.jobs, signals)
    tokens = AccessTokens(on.secret, settings.access_token_expire_minutes * 60, clock)
    tiers = settings.tiers
    access = Access(db, clock, tokens, tiers=tiers, enabled=settings.auth_enabled, limited=settings.limited)
    passwords = Passwords()
    stack.callback(passwords.close)
    services = ApiServices(
        access=access,
        throttle=throttle,
        logins=Logins(
            db,
            clock,
            access,
            passwords,
            tokens,
            on.metrics,
            tiers=tiers,
            open_to_all=settings.registration_enabled,
            access_seconds=settings.access_token_expire_minutes * 60,
            session_seconds=settings.refresh_token_expire_days * 86_400,
        ),
        keys=Keys(db, clock, access),
        users=Users(db, clock, access, passwords, signals, tiers=tiers),
        usages=Usages(db, clock),
        uploads=uploads,
        backends=Backends(db, clock, node_id=settings.node_id),
        overview=Overview(db, on.jobs, clock),
        submitter=submitter,
        jobs=on.jobs,
        results=Results(
            db,
            on.jobs,
            on.storage,
            clock,
            stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="conversions")),
            signer=on.signer if on.embedded_storage else None,
        ),
        watcher=watcher,
        batches=Batches(db, submitter, on.jobs, clock, queue_limit=settings.queue_limit),
        inputs=inputs,
        webhooks=webhooks,
        workflows=workflows,
        models=Models(on.pool),
        health=Health(
            db,
            on.storage,
            on.pool,
            signals,
            clock,
            database_embedded=settings.postgres_url is None,
            storage_embedded=on.embedded_storage,
            redis_embedded=settings.redis_url is None,
        ),
        metrics=on.metrics,
        clock=clock,
    )
    await apply_tiers(db, tiers)
    await on.pool.refresh()
    _run(stack, "watcher", watcher.run)
    if access.enabled:
        _run(stack, "access", access.run)
        _run(stack, "uses of keys", access.keep_uses)
        stack.push_async_callback(access.note_uses)
    _run(stack, "pool", on.pool.run)
    return Service(
        build_app(services, _api_options(settings), make_gate=make.gate),
        services,
        on.pool,
        db,
        settings.shutdown_grace,
        driving,
        0 if access.enabled else await db.read(accounts.of_people),
    )


async def _worker(
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
    make = makers(on.tracing)
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


def _prompt_rules(on: Parts, hook: Hook | None, graphs: Graphs) -> PromptRules | None:
    """None if the operator has none."""
    settings = on.settings
    listed = settings.block_list
    if listed is None and hook is None:
        return None
    return PromptRules(
        listed,
        hook,
        graphs,
        on.pool,
        on.metrics,
        timeout=settings.prompt_hook_timeout,
        on_failure=settings.prompt_hook_on_failure,
    )


def _policy(settings: Settings) -> NodePolicy:
    return NodePolicy.open() if settings.open_to_all_nodes else NodePolicy.core()


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


def _api_options(settings: Settings) -> ApiOptions:
    return ApiOptions(
        version=__version__,
        jobs_enabled=settings.jobs_enabled,
        max_body_size=settings.max_body_size,
        max_upload_size=settings.max_upload_size,
        public_url=settings.public_url,
        cors_origins=settings.cors_origins,
        cors_methods=settings.cors_methods,
        cors_headers=settings.cors_headers,
        trusted=Trusted.read(settings.trusted_proxies),
        allowed_hosts=HostNames.read(settings.allowed_hosts),
        hsts_max_age=settings.hsts_max_age,
        metrics_token=None if settings.metrics_token is None else settings.metrics_token.get_secret_value(),
    )
