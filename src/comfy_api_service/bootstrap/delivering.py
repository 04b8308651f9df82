"""What delivers webhooks, beside a worker."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api_service.api import webhook_shapes
from comfy_api_service.bootstrap.parts import Parts, background
from comfy_api_service.domain.account import LOCAL, Account
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_deliverer_id
from comfy_api_service.domain.job import Job
from comfy_api_service.domain.users import User
from comfy_api_service.domain.webhook import Delivery
from comfy_api_service.outbound.post import open_poster
from comfy_api_service.services.deliverer import Deliverer
from comfy_api_service.services.held import AT_ONCE, Held
from comfy_api_service.services.lane_work import LaneWork, Tools
from comfy_api_service.services.sealing import Sealer
from comfy_api_service.services.views import JobView

if TYPE_CHECKING:
    from comfy_api_service.telemetry.tracing import Tracing


async def deliverer(on: Parts, stack: contextlib.AsyncExitStack) -> Deliverer:
    """It runs until the stack is left, and lets go of what it holds then."""
    settings = on.settings
    poster = await stack.enter_async_context(
        open_poster(allow_private=settings.webhook_allow_private, at_once=AT_ONCE)
    )
    base, tiers = settings.public_url or "", settings.tiers

    def describe(delivery: Delivery, view: JobView | None) -> Any:
        return webhook_shapes.sent(delivery, view, base)

    def account_of(owner: User) -> Account:
        return LOCAL if owner.id == LOCAL_ACCOUNT else owner.account(tiers)

    def view(account: Account, job: Job) -> JobView:
        return on.jobs.view(account, job)

    tools = Tools(
        db=on.db,
        poster=poster,
        sealer=Sealer(on.secret),
        clock=on.clock,
        metrics=on.metrics,
        describe=describe,
        view=view,
        account_of=account_of,
        first_pause=settings.webhook_retry_delay,
        holder=new_deliverer_id(),
        held=Held(),
    )
    made = Deliverer(
        on.db,
        on.clock,
        on.metrics,
        tools,
        alone=settings.postgres_url is None,
        lane_work=_lane_work(on.tracing),
    )
    on.announcer.on_change(made.look)
    background(stack, "deliverer", made.run)
    stack.push_async_callback(made.drain, settings.shutdown_grace)
    return made


def _lane_work(tracing: "Tracing | None") -> Callable[..., LaneWork]:
    """The plain class, unless traces are on."""
    if tracing is None:
        return LaneWork
    from comfy_api_service.services.traced import TracedLaneWork  # noqa: PLC0415

    return partial(TracedLaneWork, tracing)
