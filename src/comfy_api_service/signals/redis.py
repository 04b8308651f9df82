"""Signals between processes, over Redis or Valkey.

Listeners of this process are told at once, as by `MemorySignals`; what the other processes are to hear is put
down and sent by a task of its own, so that nobody who has something to say waits for Redis. Whatever is lost
is made up for by looking into the database: when a connection is back, all listeners are asked to.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Final

from comfy_api_service.domain.events import Event, Preview, Progress
from comfy_api_service.redis_link.client import Refusal
from comfy_api_service.redis_link.link import RedisAway, RedisLink
from comfy_api_service.redis_link.outage import Outage
from comfy_api_service.redis_link.subscription import Subscription
from comfy_api_service.signals import wire
from comfy_api_service.signals.base import Latest, Mailbox, Note
from comfy_api_service.signals.memory import MemorySignals
from comfy_api_service.signals.outbox import Outbox
from comfy_api_service.signals.topics import Topics
from comfy_api_service.telemetry import Metrics

POLL_SECONDS: Final = 1.0
"""Between two looks for work while wake-ups come from everywhere."""
SPREAD_SECONDS: Final = 0.5
"""Over which the looks of several processes are spread, and within which several hints to look are one."""
GATHERED_SECONDS: Final = 0.05
"""For which progress and previews wait for those of other jobs: an exchange costs more than what it carries."""
TURNED_AWAY_SECONDS: Final = 0.05
"""Before the next try to send, when the link is there but has no room."""
MOST_WANTED: Final = 1024
"""Jobs whose new preview may wait to be fetched."""
FETCHED_TOGETHER: Final = 4
FLUSHES: Final = 8
"""Exchanges that are tried at the end to send what is left."""


class RedisSignals:
    def __init__(self, link: RedisLink, metrics: Metrics, *, listens: bool = True) -> None:
        """`listens`: somebody may ask this process how jobs are, of which others know."""
        self.connected = False
        self._link = link
        self._metrics = metrics
        self._local = MemorySignals()
        self._topics = Topics(link.db)
        me = secrets.token_hex(8)
        self._own = wire.head(me)
        self._outbox = Outbox(me, self._topics)
        self._refused = Outage("redis_refuses", "redis_accepts")
        self._filled = asyncio.Event()
        self._hurried = asyncio.Event()
        """There is something that does not wait for others."""
        self._wanted: dict[str, str] = {}
        self._want = asyncio.Event()
        self._looking: asyncio.TimerHandle | None = None
        channels = (self._topics.workers, self._topics.listeners) if listens else (self._topics.workers,)
        self._subscription = Subscription(link, channels, hear=self._hear, changed=self._changed)
        link.on_change(self._changed)
        metrics.set_redis("disconnected")

    async def run(self) -> None:
        """Keep both connections, send and hear, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for work in (self._link.run, self._subscription.run, self._send, self._fetch):
                group.create_task(work())

    async def flush(self) -> None:
        """Send what is left, if Redis takes it."""
        with contextlib.suppress(RedisAway):
            for _ in range(FLUSHES):
                if self._outbox:
                    await self._link.ask("publish", *self._outbox.take())

    # --- what this process says ----------------------------------------------------------------------------

    def wake(self) -> bool:
        if self._can_say("wake"):
            self._outbox.wake()
            self._hurried.set()
        return self._local.wake()

    def publish(self, note: Note) -> None:
        if not self._local.tell(note) or not self._can_say(_use(note)):
            return
        if not self._outbox.put(note, asyncio.get_running_loop().time()):
            self._metrics.redis_messages.labels("dropped").inc()
        if isinstance(note.body, Event):
            self._hurried.set()

    def ask_cancel(self, job_id: str) -> None:
        self._local.ask_cancel(job_id)
        if self._can_say("cancel") and not self._outbox.cancel(job_id):
            self._metrics.redis_messages.labels("dropped").inc()
        self._hurried.set()

    def pool_changed(self) -> None:
        self._local.pool_changed()
        if self._can_say("pool"):
            self._outbox.pool_changed()
            self._hurried.set()

    def _can_say(self, use: str) -> bool:
        if not self._link.up:
            self._lost(use)
            return False
        self._filled.set()
        return True

    def _lost(self, use: str) -> None:
        """Something was not said: the others are told to look as soon as they can be."""
        self._metrics.redis_fallbacks.labels(use).inc()
        self._outbox.wake()
        self._outbox.pool_changed()
        self._outbox.look()
        self._hurried.set()

    async def _send(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox and self._link.up:
                await self._gathered()
                try:
                    replies = await self._link.ask("publish", *self._outbox.take())
                except RedisAway:
                    self._lost("publish")
                    await asyncio.sleep(TURNED_AWAY_SECONDS)
                else:
                    for reply in replies:
                        if isinstance(reply, Refusal):
                            self._refused.because(reply.code)

    async def _gathered(self) -> None:
        if not self._hurried.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHERED_SECONDS):
                    await self._hurried.wait()
        self._hurried.clear()

    # --- what it hears -------------------------------------------------------------------------------------

    def _hear(self, payload: bytes) -> None:
        if payload.startswith(self._own):
            return
        signals = wire.unpack(payload)
        if signals is None:
            self._metrics.redis_messages.labels("ignored").inc()
            return
        understood = [signal for signal in signals if signal is not None]
        self._metrics.redis_messages.labels("ignored").inc(len(signals) - len(understood))
        self._metrics.redis_messages.labels("received").inc(len(understood))
        for signal in understood:
            self._take(signal)

    def _take(self, signal: wire.Signal) -> None:
        match signal:
            case wire.Wake():
                self._local.wake()
            case wire.PoolChanged():
                self._local.pool_changed()
            case wire.CancelAsked(job_id):
                self._local.ask_cancel(job_id)
            case wire.LookNow(str(job_id), str(account_id)):
                self._local.look(job_id, account_id)
            case wire.LookNow():
                self._look_soon()
            case wire.Pictured(job_id, account_id, attempt):
                self._pictured(job_id, account_id, attempt)
            case Note():
                self._local.publish(signal)

    def _pictured(self, job_id: str, account_id: str, attempt: int) -> None:
        known = self._local.known(job_id, attempt)
        if known is None:
            return
        known.preview, known.has_preview = None, True
        if self._local.wants_preview(job_id, account_id) and len(self._wanted) < MOST_WANTED:
            self._wanted[job_id] = account_id
            self._want.set()

    async def _fetch(self) -> None:
        """Fetch new previews for those who listen; one that is replaced while it waits is fetched once."""
        while True:
            await self._want.wait()
            self._want.clear()
            while self._wanted:
                some = [self._wanted.popitem() for _ in range(min(len(self._wanted), FETCHED_TOGETHER))]
                found = await self._pictures([job_id for job_id, _ in some])
                for job_id, account_id in some:
                    if job_id in found:
                        self._draw(job_id, account_id, *found[job_id])

    def _draw(self, job_id: str, account_id: str, attempt: int, preview: Preview) -> None:
        """Hand a picture on; it is not held here, of jobs that may end unheard."""
        self._local.publish(Note(job_id, account_id, attempt, preview))
        known = self._local.known(job_id, attempt)
        if known is not None:
            known.preview = None

    # --- what is kept for newcomers ------------------------------------------------------------------------

    async def latest(self, job_ids: Collection[str]) -> Mapping[str, Latest]:
        """As this process heard it; of jobs that it heard nothing of, as Redis keeps it."""
        known = await self._local.latest(job_ids)
        unknown = [job_id for job_id in job_ids if job_id not in known]
        if not unknown:
            return known
        commands = [
            command
            for job_id in unknown
            for command in (
                ("GET", self._topics.progress_key(job_id)),
                ("GETRANGE", self._topics.preview_key(job_id), 0, 63),
            )
        ]
        try:
            replies = await self._link.ask("read", *commands)
        except RedisAway:
            self._metrics.redis_fallbacks.labels("read").inc()
            return known
        kept = zip(unknown, replies[::2], replies[1::2], strict=True)
        found = {job_id: latest for job_id, *pair in kept if (latest := _latest(job_id, *pair)) is not None}
        return {**found, **await self._local.latest(job_ids)}

    async def preview(self, job_id: str, attempt: int) -> Preview | None:
        here = await self._local.preview(job_id, attempt)
        if here is not None:
            return here
        of, preview = (await self._pictures([job_id])).get(job_id, (0, None))
        return preview if of == attempt else None

    async def _pictures(self, job_ids: Collection[str]) -> Mapping[str, tuple[int, Preview]]:
        try:
            replies = await self._link.ask(
                "read", *(("GET", self._topics.preview_key(job_id)) for job_id in job_ids)
            )
        except RedisAway:
            self._metrics.redis_fallbacks.labels("read").inc()
            return {}
        return {
            job_id: found
            for job_id, reply in zip(job_ids, replies, strict=True)
            if isinstance(reply, bytes) and (found := wire.read_picture(reply)) is not None
        }

    # --- connections ---------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """A connection came or went."""
        connected = self._link.up and self._subscription.up
        if connected != self.connected:
            self.connected = connected
            self._metrics.set_redis("connected" if connected else "disconnected")
            if connected:
                self._local.wake()
                self._local.pool_changed()
                self._look_soon()
            else:
                self._local.forget()
        if self._link.up and self._outbox:
            self._filled.set()

    def _look_soon(self) -> None:
        if self._looking is None:
            wait = secrets.SystemRandom().uniform(0, SPREAD_SECONDS)
            self._looking = asyncio.get_running_loop().call_later(wait, self._look_now)

    def _look_now(self) -> None:
        self._looking = None
        self._local.look_all()

    # --- as within one process -----------------------------------------------------------------------------

    @property
    def poll_seconds(self) -> float:
        return POLL_SECONDS if self.connected else self._local.poll_seconds

    @property
    def wakes(self) -> int:
        return self._local.wakes

    async def woken(self, seen: int, timeout: float) -> None:
        await self._local.woken(seen, timeout)

    def listen_job(self, job_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]:
        return self._local.listen_job(job_id, previews=previews)

    def listen_account(self, account_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]:
        return self._local.listen_account(account_id, previews=previews)

    def on_cancel(self, act: Callable[[str], None]) -> Callable[[], None]:
        return self._local.on_cancel(act)

    def on_pool_change(self, act: Callable[[], None]) -> Callable[[], None]:
        return self._local.on_pool_change(act)


def _use(note: Note) -> str:
    match note.body:
        case Event():
            return "event"
        case Progress():
            return "progress"
        case Preview():
            return "preview"


def _latest(job_id: str, progress: object, picture: object) -> Latest | None:
    """From what is kept: of the newer attempt, where the two differ."""
    told = wire.read_item(progress) if isinstance(progress, bytes) else None
    pictured = wire.read_picture(picture) if isinstance(picture, bytes) else None
    attempt = pictured[0] if pictured is not None else 0
    if not isinstance(told, Note) or told.job_id != job_id or not isinstance(told.body, Progress):
        return Latest(attempt, None, has_preview=True) if pictured is not None else None
    if told.attempt < attempt:
        return Latest(attempt, None, has_preview=True)
    return Latest(told.attempt, told.body, has_preview=attempt == told.attempt)
