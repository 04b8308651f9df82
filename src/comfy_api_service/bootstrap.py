"""The composition root: the one place that builds objects from settings and wires them.

Nothing is built at import. Everything that is opened here is closed here, in the opposite order.
"""

import asyncio
import contextlib
import fcntl
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from comfy_api_service import __version__
from comfy_api_service.api.app import Api, build_app
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.services import ApiServices
from comfy_api_service.comfyui.transport import open_http
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.migrate import upgrade, upgrade_server
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.domain.compilation import Compiled, compile_generation
from comfy_api_service.domain.params import generation_from
from comfy_api_service.media.pipeline import Intake
from comfy_api_service.redis_link import address
from comfy_api_service.services.announce import Announcer
from comfy_api_service.services.batches import Batches
from comfy_api_service.services.forever import forever
from comfy_api_service.services.health import Health
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.models import Models
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.results import Results
from comfy_api_service.services.submit import Submitter
from comfy_api_service.services.watch import Watcher
from comfy_api_service.settings import Settings
from comfy_api_service.signals.base import Signals
from comfy_api_service.signals.memory import MemorySignals
from comfy_api_service.storage.base import Storage
from comfy_api_service.storage.links import LinkSigner
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.storage.s3 import Bucket, S3Storage
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.carrier import Carrier
from comfy_api_service.worker.collect import Collector
from comfy_api_service.worker.parking import Parking
from comfy_api_service.worker.preparation import Preparation
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.shelf import Shelf
from comfy_api_service.worker.upkeep import Upkeep
from comfy_api_service.worker.worker import Worker

log = structlog.get_logger()


class DataFolderInUse(Exception):
    """Another process of the service works on this data folder."""


class DataFolderUnusable(Exception):
    """The data folder cannot be made or written to."""


@dataclass(slots=True)
class Service:
    """The service in one process: its HTTP application, and its worker running beside it."""

    app: Api
    services: ApiServices
    worker: Worker
    pool: Pool
    db: Database
    grace: float
    _drained: bool = False

    async def drain(self) -> None:
        """Take no more work, let running jobs finish for the grace time; then end streams with a reason."""
        if not self._drained:
            self._drained = True
            await self.worker.drain(self.grace)
            self.app.drain()


async def migrate(settings: Settings) -> str:
    """Bring the schema up to date; returns its revision.

    Raises `SchemaTooNew`, `DataFolderUnusable`, `DatabaseUnusable`.
    """
    if settings.postgres_url is not None:
        return await upgrade_server(settings.postgres_url)
    _make_folder(settings.data_dir)
    return await asyncio.to_thread(upgrade, settings.database_path)


async def _open_database(settings: Settings) -> Database:
    if settings.postgres_url is None:
        return SqliteDatabase(settings.database_path)
    from comfy_api_service.db.postgres import PostgresDatabase  # noqa: PLC0415 - spares others its loading

    return await PostgresDatabase.open(
        settings.postgres_url,
        application=f"comfy-api serve {settings.node_id}",
        connections=settings.database_pool_size,
    )


@asynccontextmanager
async def service(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """Everything in one process.

    Raises `DataFolderInUse`, `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        _make_folder(settings.data_dir)
        stack.enter_context(_only_worker(settings.data_dir / "worker.lock"))
        if settings.postgres_url is None:
            stack.enter_context(_only_worker(settings.database_path.with_suffix(".lock")))
        await migrate(settings)
        db = await _open_database(settings)
        stack.push_async_callback(db.close)
        await db.write(lambda tx: accounts.ensure(tx, LOCAL, clock.now()))
        metrics = Metrics()
        signals = await stack.enter_async_context(_signals(settings, metrics))
        signer = LinkSigner(_secret(settings), settings.public_url or "")
        storage = _storage(settings, signer, stack)
        pictures = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="pictures"))
        http = await stack.enter_async_context(open_http())

        pool = Pool(db, signals, clock)
        announcer = Announcer(signals, metrics)
        jobs = Jobs(db, pool, signals, announcer, storage, clock)
        submitter = Submitter(
            db,
            Submissions(
                db,
                queue_limit=settings.queue_limit,
                far_from_limit=lambda: pool.far_from(settings.queue_limit),
                on_writing=signals.wake,
            ),
            pool,
            jobs,
            signals,
            clock,
            metrics,
            default_model=settings.default_model,
        )
        watcher = Watcher(db, jobs, signals)
        embedded = settings.s3_endpoint is None
        health = Health(
            db,
            storage,
            pool,
            signals,
            clock,
            database_embedded=settings.postgres_url is None,
            storage_embedded=embedded,
            redis_embedded=settings.redis_url is None,
        )
        services = ApiServices(
            submitter=submitter,
            jobs=jobs,
            results=Results(db, jobs, storage, clock, pictures, signer=signer if embedded else None),
            watcher=watcher,
            batches=Batches(db, submitter, jobs, clock, queue_limit=settings.queue_limit),
            models=Models(pool),
            health=health,
            metrics=metrics,
            clock=clock,
        )
        reporter = Reporter(db, signals, announcer, clock, metrics)
        parking, carrier = None, None
        if not embedded:
            parked = LocalStorage(settings.data_dir / "parked", signer)
            stack.callback(parked.close)
            shelf = Shelf(parked, clock, metrics, limit_bytes=settings.parked_limit)
            await shelf.load()
            parking = Parking(storage, shelf)
            carrier = Carrier(
                storage,
                shelf,
                parking,
                reporter,
                clock,
                metrics,
                retention=LOCAL.retention,
                timeout=settings.parked_timeout,
            )
        worker = Worker(
            urls=settings.comfyui_url,
            node_id=settings.node_id,
            http=http,
            db=db,
            signals=signals,
            clock=clock,
            metrics=metrics,
            reporter=reporter,
            settler=Settler(
                Collector(parking or storage, Intake(pictures), metrics, limit_bytes=settings.artifact_limit),
                reporter,
                clock,
                parking=parking,
                retention=LOCAL.retention,
                job_timeout=settings.job_timeout,
            ),
            carrier=carrier,
            upkeep=Upkeep(
                db,
                storage,
                reporter,
                clock,
                metrics,
                unservable_timeout=settings.unservable_timeout,
                job_retention=settings.job_retention,
            ),
            preparation=Preparation(
                _late_compiler(pool, settings.default_model), lambda: pool.view.complete, reporter, clock
            ),
            concurrency=settings.worker_concurrency,
            job_timeout=settings.job_timeout,
            stall_timeout=settings.stall_timeout,
        )
        await worker.register()
        await pool.refresh()
        for name, work in (("worker", worker.run), ("watcher", watcher.run), ("pool", pool.run)):
            stack.push_async_callback(_stop, asyncio.create_task(forever(name, work), name=name))
        app = build_app(services, _api_options(settings))
        ready = Service(app, services, worker, pool, db, settings.shutdown_grace)
        stack.push_async_callback(ready.drain)
        yield ready


@asynccontextmanager
async def _signals(settings: Settings, metrics: Metrics) -> AsyncIterator[Signals]:
    """Within the process, or over Redis; that need not be there yet."""
    if settings.redis_url is None:
        yield MemorySignals()
        return
    from comfy_api_service.redis_link.link import RedisLink  # noqa: PLC0415 - takes a third of a second
    from comfy_api_service.signals.redis import RedisSignals  # noqa: PLC0415

    link = RedisLink(address.parse(settings.redis_url), metrics)
    signals = RedisSignals(link, metrics)
    task = asyncio.create_task(forever("signals", signals.run), name="signals")
    try:
        yield signals
    finally:
        await signals.flush()
        await _stop(task)
        await link.close()


def _storage(settings: Settings, signer: LinkSigner, stack: contextlib.AsyncExitStack) -> Storage:
    bucket = s3_bucket(settings)
    if bucket is None:
        local = LocalStorage(settings.data_dir / "artifacts", signer)
        stack.callback(local.close)
        return local
    s3 = S3Storage(bucket)
    stack.push_async_callback(s3.close)
    return s3


def s3_bucket(settings: Settings) -> Bucket | None:
    """Where results go; None if that is the data folder."""
    access_key, secret_key = settings.s3_access_key, settings.s3_secret_key
    if settings.s3_endpoint is None or access_key is None or secret_key is None:
        return None
    return Bucket(
        endpoint=settings.s3_endpoint,
        name=settings.s3_bucket,
        region=settings.s3_region,
        access_key=access_key.get_secret_value(),
        secret_key=secret_key.get_secret_value(),
        public_url=settings.s3_public_url,
    )


def _late_compiler(pool: Pool, default_model: str | None) -> Callable[[Mapping[str, Any]], Compiled]:
    """Compiles a job that was accepted before any inventory was known."""

    def compile_late(params: Mapping[str, Any]) -> Compiled:
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
        public_url=settings.public_url,
        cors_origins=settings.cors_origins,
        cors_methods=settings.cors_methods,
        cors_headers=settings.cors_headers,
        metrics_token=None if settings.metrics_token is None else settings.metrics_token.get_secret_value(),
    )


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts are in it
    except OSError as fault:
        raise DataFolderUnusable(f"The data folder cannot be made: {fault.strerror}.") from fault


@contextmanager
def _only_worker(path: Path) -> Iterator[None]:
    """An exclusive lock, held for the life of the process, that ends with it however it dies: it proves that
    no other worker lives on this data, so a restarted one adopts at once.
    """
    try:
        handle = path.open("a")
    except OSError as fault:
        raise DataFolderUnusable(f"The data folder cannot be written to: {fault.strerror}.") from fault
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderInUse("Another process of the service uses this data folder.") from None
        yield


def _secret(settings: Settings) -> bytes:
    """The service's own key: the setting's, or one that is made at first start and kept."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    path = settings.data_dir / "secret.key"
    with contextlib.suppress(FileNotFoundError):
        kept = path.read_bytes()
        if len(kept) >= 32:
            return kept
    made = secrets.token_hex(32).encode()
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(made)
    temporary.replace(path)
    return made
