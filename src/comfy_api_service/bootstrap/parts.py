"""What every role is built on: database, signals, storage, and what is known of the pool."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from comfy_api_service import __version__
from comfy_api_service.bootstrap import folder
from comfy_api_service.bootstrap.reporting import reporting
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.migrate import upgrade, upgrade_server
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.domain.hook import Hook
from comfy_api_service.limits.base import Buckets
from comfy_api_service.limits.memory import MemoryBuckets
from comfy_api_service.outbound.hook import PYTHON, open_http_hook, python_hook
from comfy_api_service.redis_link import address
from comfy_api_service.services.access import Access
from comfy_api_service.services.announce import Announcer
from comfy_api_service.services.backends import Backends
from comfy_api_service.services.forever import forever
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.keys import Keys
from comfy_api_service.services.passwords import Passwords
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.tokens import AccessTokens
from comfy_api_service.services.users import Users
from comfy_api_service.settings import Settings
from comfy_api_service.signals.base import Signals
from comfy_api_service.signals.memory import MemorySignals
from comfy_api_service.storage.base import Storage
from comfy_api_service.storage.links import LinkSigner
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.storage.s3 import Bucket, S3Storage
from comfy_api_service.telemetry import Metrics

if TYPE_CHECKING:
    from comfy_api_service.redis_link.link import RedisLink
    from comfy_api_service.telemetry.tracing import Tracing

SHELL_CONNECTIONS: Final = 2


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    clock: Clock
    metrics: Metrics
    db: Database
    signals: Signals
    buckets: Buckets | None
    secret: bytes
    signer: LinkSigner
    storage: Storage
    pool: Pool
    announcer: Announcer
    jobs: Jobs
    tracing: "Tracing | None"
    """None: traces are off."""

    @property
    def embedded_storage(self) -> bool:
        return self.settings.s3_endpoint is None


@asynccontextmanager
async def parts(settings: Settings, clock: Clock, *, role: str) -> AsyncIterator[Parts]:
    """Opened and closed here. `role` is shown by the database's server.

    Raises `DataFolderUnusable`, `SchemaTooNew`, `DatabaseUnusable`.
    """
    async with contextlib.AsyncExitStack() as stack:
        metrics = Metrics()
        metrics.tell_process(role=role, version=__version__)
        metrics.begin_tiers((LOCAL.tier, *settings.tiers))
        tracing = await stack.enter_async_context(reporting(settings, metrics, role=role))
        folder.make(settings.data_dir)
        await migrate(settings)
        db = await open_database(settings, role=role, connections=settings.database_pool_size)
        stack.push_async_callback(db.close)
        await db.write(lambda tx: accounts.ensure(tx, LOCAL, clock.now()))
        link = await stack.enter_async_context(open_link(settings, metrics))
        signals = await stack.enter_async_context(open_signals(link, metrics, listens=role != "worker"))
        secret = _secret(settings)
        signer = LinkSigner(secret, settings.public_url or "")
        storage = open_storage(settings, signer, stack)
        if tracing is not None:
            storage = _traced(storage, tracing, remote=settings.s3_endpoint is not None)
        pool = Pool(db, signals, clock, metrics)
        announcer = Announcer(signals, metrics)
        yield Parts(
            settings=settings,
            clock=clock,
            metrics=metrics,
            db=db,
            signals=signals,
            buckets=_buckets(settings, link, clock, metrics),
            secret=secret,
            signer=signer,
            storage=storage,
            pool=pool,
            announcer=announcer,
            jobs=Jobs(db, pool, signals, announcer, storage, clock),
            tracing=tracing,
        )


async def migrate(settings: Settings) -> str:
    """Bring the schema up to date; returns its revision.

    Raises `SchemaTooNew`, `DataFolderUnusable`, `DatabaseUnusable`.
    """
    if settings.postgres_url is not None:
        return await upgrade_server(settings.postgres_url)
    folder.make(settings.data_dir)
    return await asyncio.to_thread(upgrade, settings.database_path)


async def open_database(settings: Settings, *, role: str, connections: int) -> Database:
    if settings.postgres_url is None:
        return SqliteDatabase(settings.database_path)
    from comfy_api_service.db.postgres import PostgresDatabase  # noqa: PLC0415 - spares others its loading

    return await PostgresDatabase.open(
        settings.postgres_url,
        application=f"comfy-api {role} {settings.node_id}",
        connections=connections,
    )


@asynccontextmanager
async def open_link(settings: Settings, metrics: Metrics) -> AsyncIterator["RedisLink | None"]:
    """The way to Redis, which need not be there yet; None where there is none."""
    if settings.redis_url is None:
        yield None
        return
    from comfy_api_service.redis_link.link import RedisLink  # noqa: PLC0415 - takes a third of a second

    link = RedisLink(address.parse(settings.redis_url), metrics)
    try:
        yield link
    finally:
        await link.close()


def _buckets(settings: Settings, link: "RedisLink | None", clock: Clock, metrics: Metrics) -> Buckets | None:
    """None: nobody is held back."""
    if not settings.limited:
        return None
    if link is None:
        return MemoryBuckets(clock)
    from comfy_api_service.limits.redis import RedisBuckets  # noqa: PLC0415

    return RedisBuckets(link, metrics)


@asynccontextmanager
async def open_signals(
    link: "RedisLink | None", metrics: Metrics, *, listens: bool = True
) -> AsyncIterator[Signals]:
    """Within the process, or over Redis; `listens` as there."""
    if link is None:
        yield MemorySignals()
        return
    from comfy_api_service.signals.redis import RedisSignals  # noqa: PLC0415

    signals = RedisSignals(link, metrics, listens=listens)
    task = asyncio.create_task(forever("signals", signals.run), name="signals")
    try:
        yield signals
    finally:
        await signals.flush()
        await stop(task)


@asynccontextmanager
async def open_hook(settings: Settings) -> AsyncIterator[Hook | None]:
    """What the operator asks about texts, if anything. Raises `HookUnusable`."""
    named = settings.prompt_hook
    if named is None:
        yield None
    elif named.startswith(PYTHON):
        yield python_hook(named)
    else:
        secret = settings.prompt_hook_secret
        async with open_http_hook(named, None if secret is None else secret.get_secret_value()) as hook:
            yield hook


@asynccontextmanager
async def backends(settings: Settings) -> AsyncIterator[Backends]:
    """The operator's view of the pool, beside whatever runs. Raises as `parts` does."""
    await migrate(settings)
    db = await open_database(settings, role="shell", connections=SHELL_CONNECTIONS)
    try:
        yield Backends(db, SystemClock(), node_id=settings.node_id)
    finally:
        await db.close()


@dataclass(frozen=True, slots=True)
class People:
    """Accounts and their keys."""

    users: Users
    keys: Keys


@asynccontextmanager
async def people(settings: Settings) -> AsyncIterator[People]:
    """The operator's hold on accounts, beside whatever runs, which sees a change when it looks next. Raises as
    `parts` does.
    """
    await migrate(settings)
    clock, tiers = SystemClock(), settings.tiers
    db = await open_database(settings, role="shell", connections=SHELL_CONNECTIONS)
    passwords = Passwords()
    try:
        tokens = AccessTokens(secrets.token_bytes(32), 1.0, clock)  # nobody is let in here
        access = Access(db, clock, tokens, tiers=tiers, enabled=False, limited=False)
        yield People(
            Users(db, clock, access, passwords, MemorySignals(), tiers=tiers), Keys(db, clock, access)
        )
    finally:
        passwords.close()
        await db.close()


def open_storage(settings: Settings, signer: LinkSigner, stack: contextlib.AsyncExitStack) -> Storage:
    """Where results go; closed with `stack`."""
    bucket = s3_bucket(settings)
    if bucket is None:
        local = LocalStorage(settings.data_dir / folder.ARTIFACTS, signer)
        stack.callback(local.close)
        return local
    s3 = S3Storage(bucket)
    stack.push_async_callback(s3.close)
    return s3


def _traced(storage: Storage, tracing: "Tracing", *, remote: bool) -> Storage:
    from comfy_api_service.storage.traced import TracedStorage  # noqa: PLC0415

    return TracedStorage(tracing, storage, remote=remote)


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


def _secret(settings: Settings) -> bytes:
    """The setting's, or one that is made at first start and kept."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    return folder.own_key(settings.data_dir)


STOP_AGAIN_SECONDS = 1.0


def background(stack: contextlib.AsyncExitStack, name: str, work: Callable[[], Any]) -> None:
    """In the background, until the stack is left."""
    stack.push_async_callback(stop, asyncio.create_task(forever(name, work), name=name))


async def stop(task: "asyncio.Task[Any]") -> None:
    """End background work, and raise what it raised.

    It is asked again each second: until Python 3.12 `asyncio.wait_for`, by which libraries wait, can lose a
    cancellation (python/cpython#86296), and the work would go on while its stop waits for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=STOP_AGAIN_SECONDS)
    with contextlib.suppress(asyncio.CancelledError):
        task.result()
