"""One receiver's deliveries, while this process holds its lane: sent side by side, noted, and taken on until nothing
is due. How many side by side follows from how the receiver does: a quick one gets more, one that fails one at a time.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
import structlog

from comfy_api_service.db import dispatch, webhooks
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.dispatch import Lane, Next, Outcome, Report
from comfy_api_service.domain import redelivery
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.signing import make_secret, signature
from comfy_api_service.domain.users import User
from comfy_api_service.domain.webhook import (
    Attempt,
    Delivery,
    DeliveryState,
    Reply,
    Trouble,
    WebhookEvent,
)
from comfy_api_service.outbound.post import Poster
from comfy_api_service.services.held import Held
from comfy_api_service.services.sealing import Sealer, Unreadable
from comfy_api_service.services.views import JobView
from comfy_api_service.telemetry import Metrics

log = structlog.get_logger()
T = TypeVar("T")

START: Final = 4
WIDEST: Final = 16
"""Deliveries to one receiver at once."""
QUICK_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0
"""How often a holder looks for what others have added, while it waits for answers."""
AHEAD: Final = 32
"""Deliveries that are read at once, to be sent one after the other."""
NOTED_TOGETHER: Final = 32
NOTED_WITHIN: Final = 0.05
"""Seconds for which an answer waits to be written with others, while more are on their way."""
UNREADABLE_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 0.5

Describe = Callable[[Delivery, JobView | None], Mapping[str, Any]]
"""The document that a receiver gets."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every lane of a process works with. `first_pause`: seconds from the first failure to the next attempt."""

    db: Database
    poster: Poster
    sealer: Sealer
    clock: Clock
    metrics: Metrics
    describe: Describe
    view: Callable[[Account, Any], JobView]
    account_of: Callable[[User], Account]
    first_pause: float
    holder: str
    held: Held


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be sent, with what it was read with."""

    delivery: Delivery
    found: Next
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    delivery: Delivery
    at: float
    reply: Reply


class LaneWork:
    def __init__(self, lane: Lane, tools: Tools) -> None:
        self._lane = lane
        self._tools = tools
        self._failures = lane.failures
        self._failed_at = 0.0
        self._paused_until = 0.0
        self._kept_waiting_until = lane.paused_until
        self._gone = False
        self._width = START
        self._ready: deque[Ready] = deque()
        self._open: dict[asyncio.Task[Sent], str] = {}
        self._outcomes: list[Outcome] = []
        self._note_by = 0.0
        self._look_at = 0.0
        self._sure_until = 0.0
        self._version: float | None = None
        self._added = asyncio.Event()
        self._stopping = False
        self._leaving = False

    @property
    def failing(self) -> bool:
        """Whether the receiver keeps failing."""
        return self._failures >= redelivery.FAILING

    def look(self) -> None:
        """Something may have been added to the lane."""
        self._look_at = 0.0
        self._added.set()

    def stop(self) -> None:
        """Take nothing more; what is open may end."""
        self._stopping = True
        self._added.set()

    async def run(self) -> float | None:
        """Until nothing is due and nothing open, or somebody else has the lane; when it is due again, if it is."""
        try:
            while True:
                self._send_ready()
                if self._must_ask():
                    found = await self._step()
                    if found.ended:
                        return found.due_at
                    await self._queue(found)
                    self._send_ready()
                if self._open:
                    await self._answers()
        finally:
            for task in self._open:
                task.cancel()
            if self._open:
                await asyncio.wait(self._open)

    def _must_ask(self) -> bool:
        """Whether it is time for the database: to note what was answered, or because nothing is left to send."""
        if not self._open or len(self._outcomes) >= NOTED_TOGETHER:
            return True
        now = time.monotonic()
        if self._outcomes and now >= self._note_by:
            return True
        if self._ready and now >= self._sure_until and len(self._open) < self._now_wide():
            return True
        return self._hungry() and now >= self._look_at

    def _hungry(self) -> bool:
        return not self._ready and len(self._open) < self._now_wide()

    def _now_wide(self) -> int:
        """How many may be open now."""
        if self._stopping or self._leaving or self._gone or self._paused_until > self._tools.clock.now():
            return 0
        return 1 if self.failing else self._width

    # --- the database ------------------------------------------------------------------------------------

    async def _step(self) -> Next:
        """Note what was answered and take what is due. Goes on until the database is there: what was delivered must
        not be forgotten.
        """
        tools, lane = self._tools, self._lane
        now = tools.clock.now()
        wide = self._now_wide()
        if not self._open and wide == 0:
            self._ready.clear()
            if self._leaving:  # those that wait come first
                self._paused_until = max(self._paused_until, now)
        report = Report(self._failures, self._paused_until, tuple(self._outcomes), self._gone)
        open_ids = (*self._open.values(), *(one.delivery.id for one in self._ready))
        most = AHEAD if wide > 1 else wide
        room = max(most - len(open_ids), 0) if self._hungry() else 0
        self._look_at = time.monotonic() + LOOK_SECONDS
        found = await self._until_written(
            lambda tx: dispatch.step(tx, lane, tools.holder, report, open_ids=open_ids, room=room, now=now)
        )
        self._sure_until = time.monotonic() + LOOK_SECONDS
        self._outcomes.clear()
        self._gone = False
        if found.version != self._version:
            # another address, another secret, or nothing is to be told any more
            self._version = found.version
            if self._ready:
                self._ready.clear()
                self._look_at = 0.0
        if found.deliveries and len(found.deliveries) == room:
            self._look_at = 0.0  # there may be more
        if found.disabled_now:
            log.warning(
                "webhook_disabled",
                account_id=lane.account_id,
                webhook=lane.webhook_id,
                reason=found.disabled,
                given_up=found.given_up,
            )
            tools.metrics.webhook_deliveries.labels("failed").inc(found.given_up)
        return found

    async def _until_written(self, write: Callable[[Tx], Awaitable[T]]) -> T:
        while True:
            try:
                return await self._tools.db.write(write)
            except Unavailable:
                await asyncio.sleep(AGAIN_SECONDS)

    # --- sending -----------------------------------------------------------------------------------------

    async def _queue(self, found: Next) -> None:
        """Get ready to send what was taken; what cannot be sent has its outcome at once."""
        if not found.deliveries:
            return
        if self._lane.webhook_id is None and not found.secrets:
            await self._make_secret()
            return
        secrets = self._opened(found.secrets)
        for delivery in found.deliveries:
            hindrance = self._hindrance(delivery, found, secrets)
            if hindrance is None:
                self._ready.append(Ready(delivery, found, secrets or ()))
            else:
                self._hindered(delivery, hindrance)

    def _send_ready(self) -> None:
        """What the database has confirmed a moment ago, as far as there are places."""
        held, receiver = self._tools.held, self._lane.receiver
        self._leaving = self._leaving or held.wanted_by_others(receiver)
        wide = self._now_wide()
        while self._ready and len(self._open) < wide and time.monotonic() < self._sure_until:
            if not held.take(receiver):
                return
            ready = self._ready.popleft()
            self._open[asyncio.create_task(self._send(ready))] = ready.delivery.id

    def _opened(self, sealed: Sequence[bytes]) -> tuple[bytes, ...] | None:
        """Those that can be; None if none can."""
        opened = []
        for one in sealed:
            with contextlib.suppress(Unreadable):
                opened.append(self._tools.sealer.open(one, self._lane.account_id))
        if len(opened) < len(sealed):
            log.warning(
                "webhook_secret_unreadable", account_id=self._lane.account_id, webhook=self._lane.webhook_id
            )
        return tuple(opened) or None

    async def _make_secret(self) -> None:
        """For an account that has none: its jobs' deliveries are signed all the same."""
        account_id = self._lane.account_id
        sealed = self._tools.sealer.seal(make_secret(), account_id)
        now = self._tools.clock.now()
        await self._until_written(lambda tx: webhooks.ensure_account_secret(tx, account_id, sealed, now))

    def _hindrance(
        self, delivery: Delivery, found: Next, secrets: tuple[bytes, ...] | None
    ) -> Trouble | None:
        if found.disabled is not None or not found.secrets:
            return Trouble.DISABLED
        if delivery.expires_at <= self._tools.clock.now():
            return Trouble.EXPIRED
        if delivery.job_id is not None and delivery.job_id not in (found.jobs or {}):
            return Trouble.JOB_DELETED
        return Trouble.SECRET if secrets is None else None

    def _hindered(self, delivery: Delivery, why: Trouble) -> None:
        """Not the receiver's fault, so it is not counted as an attempt."""
        now = self._tools.clock.now()
        attempt = Attempt(now, 0.0, None, why)
        if why is Trouble.SECRET:  # another process may have the key, or this one after a restart
            self._paused_until = now + UNREADABLE_SECONDS
            self._tools.metrics.webhook_deliveries.labels("unreadable").inc()
            self._outcomes.append(
                Outcome(delivery, attempt, DeliveryState.WAITING, self._paused_until, counted=False)
            )
            return
        self._tools.metrics.webhook_deliveries.labels("failed").inc()
        self._outcomes.append(Outcome(delivery, attempt, DeliveryState.FAILED, counted=False))

    async def _send(self, ready: Ready) -> Sent:
        tools, delivery, found = self._tools, ready.delivery, ready.found
        at = tools.clock.now()
        try:
            body = orjson.dumps(tools.describe(delivery, self._view(delivery, found)))
        except Exception:
            log.exception("webhook_not_described", delivery=delivery.id)
            return Sent(delivery, at, Reply(None, Trouble.INTERNAL, 0.0))
        timestamp = int(at)
        headers = {
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(ready.secrets, delivery.id, timestamp, body),
        }
        url = delivery.url or found.url or ""
        if (
            delivery.attempts == 0
            and delivery.type is not WebhookEvent.TEST
            and delivery.event_at > self._kept_waiting_until
        ):
            tools.metrics.webhook_delay.observe(max(at - delivery.event_at, 0.0))
        return Sent(delivery, at, await tools.poster.post(url, body, headers, asker=delivery.account_id))

    def _view(self, delivery: Delivery, found: Next) -> JobView | None:
        if delivery.job_id is None or found.jobs is None or found.owner is None:
            return None
        return self._tools.view(self._tools.account_of(found.owner), found.jobs[delivery.job_id])

    # --- answers -----------------------------------------------------------------------------------------

    async def _answers(self) -> None:
        """Wait for the next answers, or until there is something else to do."""
        now = time.monotonic()
        waits = LOOK_SECONDS if not self._outcomes else max(self._note_by - now, 0.0)
        added = asyncio.ensure_future(self._added.wait())
        try:
            done, _ = await asyncio.wait(
                {*self._open, added}, timeout=waits, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            added.cancel()
        self._added.clear()
        for task in [one for one in self._open if one in done]:
            del self._open[task]
            self._tools.held.give(self._lane.receiver)
            if not self._outcomes:
                self._note_by = time.monotonic() + NOTED_WITHIN
            self._note(task.result())

    def _note(self, sent: Sent) -> None:
        delivery, reply = sent.delivery, sent.reply
        metrics, now = self._tools.metrics, self._tools.clock.now()
        metrics.webhook_duration.observe(reply.seconds)
        attempt = Attempt(sent.at, round(reply.seconds, 3), reply.status, reply.error)
        if reply.error is not Trouble.INTERNAL and (not reply.delivered or reply.seconds >= QUICK_SECONDS):
            self._kept_waiting_until = now  # what was behind this one waited for the receiver, not for us
        next_at = None
        if reply.delivered:
            self._failures = 0
            self._width = min(self._width + 1, WIDEST) if reply.seconds < QUICK_SECONDS else START
            state, told = DeliveryState.DELIVERED, "delivered"
        else:
            next_at = self._next_attempt(sent, now)
            state = DeliveryState.FAILED if next_at is None else DeliveryState.WAITING
            told = "failed" if next_at is None else "retried"
            log.info(
                "webhook_attempt_failed",
                account_id=delivery.account_id,
                delivery=delivery.id,
                job_id=delivery.job_id,
                error=reply.error,
                status=reply.status,
                again=next_at is not None,
            )
        metrics.webhook_deliveries.labels(told).inc()
        counted = reply.error is not Trouble.INTERNAL
        self._outcomes.append(Outcome(delivery, attempt, state, next_at, counted=counted))

    def _next_attempt(self, sent: Sent, now: float) -> float | None:
        """When the delivery is tried again; None: it is not. The receiver may be left alone for a while, too."""
        delivery, reply = sent.delivery, sent.reply
        if reply.error is Trouble.GONE:
            if self._lane.webhook_id is not None:
                self._gone = True
                self._ready.clear()
            return None
        first = self._tools.first_pause
        draw = random.random()  # noqa: S311 - it spreads, it hides nothing
        tried = delivery.attempts - delivery.replayed_attempts + 1
        if reply.error is Trouble.INTERNAL:
            pause = redelivery.pause(tried + delivery.own_faults, first=first, draw=draw)
            return redelivery.in_time(now + pause, delivery.expires_at, now)
        asked = redelivery.asked_for(reply.retry_after, now) if reply.status in redelivery.HEEDED else None
        if asked is not None:
            next_at = now + max(asked, first)
            self._paused_until = max(self._paused_until, next_at)
        else:
            self._count_failure(sent, now, draw)
            next_at = now + redelivery.pause(tried, first=first, draw=draw)
        return redelivery.in_time(next_at, delivery.expires_at, now)

    def _count_failure(self, sent: Sent, now: float, draw: float) -> None:
        """Many that were open at once may fail by one and the same blip: that alone brings no rest."""
        if self.failing and sent.at < self._failed_at:
            return
        self._failed_at = now
        self._failures += 1
        self._width = max(self._width // 2, 1)
        rest = redelivery.rest(self._failures, first=self._tools.first_pause, draw=draw)
        self._paused_until = max(self._paused_until, now + rest)
