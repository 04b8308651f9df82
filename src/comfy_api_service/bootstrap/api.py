"""The role of the API: it answers HTTP, with a worker beside it or without."""

import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from comfy_api_service import __version__
from comfy_api_service.api.app import Api, build_app
from comfy_api_service.api.client_address import Trusted
from comfy_api_service.api.gate import Gate
from comfy_api_service.api.host_names import HostNames
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.services import ApiServices
from comfy_api_service.bootstrap.parts import Parts, background, open_hook, parts
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Database
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.checking import Rules
from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.domain.hook import Hook
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.outbound.fetch import Fetcher
from comfy_api_service.services.access import Access
from comfy_api_service.services.backends import Backends
from comfy_api_service.services.batches import Batches
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
from comfy_api_service.services.sealing import Sealer
from comfy_api_service.services.submit import Submitter
from comfy_api_service.services.throttle import Throttle
from comfy_api_service.services.tokens import AccessTokens
from comfy_api_service.services.uploads import Uploads
from comfy_api_service.services.usage import Usages
from comfy_api_service.services.users import Users, apply_tiers
from comfy_api_service.services.watch import Watcher
from comfy_api_service.services.webhooks import Webhooks
from comfy_api_service.services.workflows import Workflows
from comfy_api_service.settings import Settings

if TYPE_CHECKING:
    from comfy_api_service.services.deliverer import Deliverer
    from comfy_api_service.telemetry.tracing import Tracing
    from comfy_api_service.worker.worker import Worker


@dataclass(slots=True)
class Service:
    """A process that answers HTTP, with a worker beside it or without."""

    app: Api
    services: ApiServices
    pool: Pool
    db: Database
    grace: float
    driving: "Worker | None" = None
    unused_accounts: int = 0
    """Of people, where authentication is off."""
    _drained: bool = False

    @property
    def worker(self) -> "Worker":
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
        ready = await build_api(on, hook, None, None, stack)
        stack.push_async_callback(ready.drain)
        yield ready


async def build_api(
    on: Parts,
    hook: Hook | None,
    driving: "Worker | None",
    delivering: "Deliverer | None",
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
        Sealer(on.secret),
        allow_private=settings.webhook_allow_private,
        nudge=(lambda: None) if delivering is None else delivering.look,
    )
    make_gate, make_submitter = _makers(on.tracing)
    submitter = make_submitter(
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
    background(stack, "watcher", watcher.run)
    if access.enabled:
        background(stack, "access", access.run)
        background(stack, "uses of keys", access.keep_uses)
        stack.push_async_callback(access.note_uses)
    background(stack, "pool", on.pool.run)
    return Service(
        build_app(services, _api_options(settings), make_gate=make_gate),
        services,
        on.pool,
        db,
        settings.shutdown_grace,
        driving,
        0 if access.enabled else await db.read(accounts.of_people),
    )


def _makers(tracing: "Tracing | None") -> tuple[Callable[..., Gate], Callable[..., Submitter]]:
    """The plain classes, or those that tell traces of what they do, which are loaded then only."""
    if tracing is None:
        return Gate, Submitter
    from comfy_api_service.api.traced import TracedGate  # noqa: PLC0415
    from comfy_api_service.services.traced import TracedSubmitter  # noqa: PLC0415

    return partial(TracedGate, tracing), partial(TracedSubmitter, tracing)


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
