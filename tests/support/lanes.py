"""A deliverer over a database of its own, and a stand-in for the way out whose answers a test decides."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.schema import lay

from comfy_api_service.db import accounts, deliveries, webhooks
from comfy_api_service.db.base import Row
from comfy_api_service.db.sqlite import SqliteDatabase
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_deliverer_id, new_delivery_id, new_webhook_id
from comfy_api_service.domain.redelivery import DELIVERY_SECONDS
from comfy_api_service.domain.signing import make_secret
from comfy_api_service.domain.webhook import Delivery, DeliveryState, Reply, Webhook, WebhookEvent
from comfy_api_service.services.deliverer import Deliverer
from comfy_api_service.services.held import Held
from comfy_api_service.services.lane_work import LaneWork, Tools
from comfy_api_service.services.sealing import Sealer
from comfy_api_service.telemetry import Metrics

TAKEN = Reply(200, None, 0.01)


@dataclass
class WayOut:
    """`answer` gives what is replied to a URL, or an event to wait for before it is `TAKEN`."""

    answer: Callable[[str], Reply | asyncio.Event] = lambda _: TAKEN
    asked: list[str] = field(default_factory=list)
    open: int = 0
    open_most: int = 0

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, asker: str) -> Reply:
        del body, headers, asker
        self.asked.append(url)
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        try:
            answer = self.answer(url)
            if isinstance(answer, Reply):
                return answer
            await answer.wait()
            return TAKEN
        finally:
            self.open -= 1


@dataclass
class Lanes:
    db: SqliteDatabase
    out: WayOut
    deliverer: Deliverer
    tools: Tools
    clock: SystemClock

    async def webhook(self, name: str, account_id: str = LOCAL_ACCOUNT) -> Webhook:
        now = self.clock.now()
        url = f"https://{name}.example/"
        made = Webhook(new_webhook_id(), account_id, url, (WebhookEvent.SUCCEEDED,), now, now)
        sealed = self.tools.sealer.seal(make_secret(), account_id)
        await self.db.write(lambda tx: webhooks.insert(tx, made, sealed))
        return made

    async def put(
        self,
        webhook: Webhook | str,
        count: int = 1,
        *,
        account_id: str = LOCAL_ACCOUNT,
        at: float | None = None,
    ) -> list[Delivery]:
        """Deliveries to a webhook, or to a job's own address at this name."""
        now = self.clock.now() if at is None else at
        of = webhook if isinstance(webhook, Webhook) else None
        made = [
            Delivery(
                id=new_delivery_id(),
                account_id=account_id if of is None else of.account_id,
                webhook_id=None if of is None else of.id,
                receiver=f"url_{webhook}" if of is None else of.id,
                url=f"https://{webhook}.example/" if of is None else None,
                job_id=None,
                type=WebhookEvent.TEST,
                seq=None,
                event_at=now,
                state=DeliveryState.WAITING,
                attempts=0,
                next_at=now,
                expires_at=now + DELIVERY_SECONDS,
                created_at=now,
            )
            for _ in range(count)
        ]

        async def write(tx: Any) -> None:
            for one in made:
                await deliveries.insert(tx, one)

        await self.db.write(write)
        self.deliverer.look()
        return made

    async def rows(self, sql: str) -> Sequence[Row]:
        return await self.db.read(lambda tx: tx.all(sql))


@asynccontextmanager
async def lanes(
    folder: Path,
    *,
    held: Held | None = None,
    lane_work: Callable[..., LaneWork] = LaneWork,
    describe: Callable[..., Any] = lambda *_: {},
) -> AsyncIterator[Lanes]:
    """It delivers until it is left."""
    clock, db, out = SystemClock(), SqliteDatabase(lay(folder)), WayOut()
    await db.write(lambda tx: accounts.ensure(tx, LOCAL, 0.0))
    tools = Tools(
        db=db,
        poster=out,  # type: ignore[arg-type]
        sealer=Sealer(b"k" * 32),
        clock=clock,
        metrics=Metrics(),
        describe=describe,
        view=lambda *_: None,  # type: ignore[arg-type]
        account_of=lambda _: LOCAL,
        first_pause=5.0,
        holder=new_deliverer_id(),
        held=held or Held(),
    )
    deliverer = Deliverer(db, clock, tools.metrics, tools, alone=True, lane_work=lane_work)
    task = asyncio.create_task(deliverer.run())
    try:
        yield Lanes(db, out, deliverer, tools, clock)
    finally:
        await deliverer.drain(0.0)
        task.cancel()
        await asyncio.wait([task])
        await db.close()
