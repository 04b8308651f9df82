"""The connection that is asked: what is asked at the same time goes out together, and nobody waits for a Redis
that hangs.

The first question that gets no answer within 250 ms breaks the link; while it is broken every question is
turned away at once, and a task of its own connects anew, with pauses.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import AbstractConnection

from comfy_api_service.redis_link.address import RedisAddress
from comfy_api_service.redis_link.client import (
    FAULTS,
    Command,
    Refusal,
    Reply,
    client_of,
    close,
    connect,
    discard,
    exchange,
)
from comfy_api_service.redis_link.outage import Outage
from comfy_api_service.redis_link.pauses import Pauses
from comfy_api_service.telemetry import Metrics
from comfy_api_service.telemetry.metrics import REDIS_QUESTIONS

ANSWER_SECONDS: Final = 0.25
"""The longest wait for an answer, from the moment of the question."""
CONNECT_SECONDS: Final = 2.0
"""The longest wait for a connection; nobody waits for it but the task that makes it."""
BEAT_SECONDS: Final = 1.0
"""How often a link that is not used is tried."""
MOST_WAITING: Final = 10_000
"""Questions that may wait for the answers to those before them; beyond, they are turned away."""
MOST_TOGETHER: Final = 256
"""Questions that go out together."""
GRACE_SECONDS: Final = 0.05
"""For an answer that may be here already: it was this process that had no time to look."""


class RedisAway(Exception):
    """Redis does not answer: go another way."""


@dataclass(slots=True)
class _Question:
    use: str
    commands: Sequence[Command]
    answer: asyncio.Future[list[Reply]]
    asked_at: float


class RedisLink:
    def __init__(self, address: RedisAddress, metrics: Metrics) -> None:
        self.db = address.db
        self._client: Redis = client_of(address)
        self._metrics = metrics
        self._answered = {
            use: (metrics.redis_requests.labels(use, "ok"), metrics.redis_duration.labels(use))
            for use in REDIS_QUESTIONS
        }
        self._connection: AbstractConnection | None = None
        self._waiting: deque[_Question] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []
        self._away = Outage("redis_away", "redis_connected")

    @property
    def up(self) -> bool:
        """Whether questions are answered, as far as is known."""
        return self._connection is not None

    def on_change(self, act: Callable[[], None]) -> None:
        """Call `act` whenever `up` has changed."""
        self._on_change.append(act)

    def check_now(self) -> None:
        """Something suggests that the server went away."""
        self._stirred.set()

    def pubsub(self) -> PubSub:
        """For the one that listens; it has a connection of its own."""
        return self._client.pubsub()

    async def run(self) -> None:
        """Connect, look after the connection, connect again, until cancelled."""
        pauses = Pauses()
        try:
            while True:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        connection = await connect(self._client)
                except FAULTS as fault:
                    self._away.because(type(fault).__name__)
                else:
                    pauses.reset()
                    self._away.over()
                    self._connection = connection
                    self._changed()
                    await self._look_after()
                await asyncio.sleep(pauses.next())
        finally:
            if self._sender is not None:
                self._sender.cancel()
                await asyncio.wait((self._sender,))
            await self._break(None)

    async def close(self) -> None:
        """After `run` has ended."""
        await close(self._client)

    async def ask(self, use: str, *commands: Command) -> list[Reply]:
        """The answers, in the order of the commands. `use`, one of `REDIS_QUESTIONS`, is for the figures.

        Raises `RedisAway`: at once while the link is broken, else after 250 ms at most.
        """
        if self._connection is None or len(self._waiting) >= MOST_WAITING:
            self._metrics.redis_requests.labels(use, "skipped").inc()
            raise RedisAway
        loop = asyncio.get_running_loop()
        question = _Question(use, commands, loop.create_future(), loop.time())
        self._waiting.append(question)
        if self._sender is None:
            self._sender = loop.create_task(self._send(), name="redis")
        return await question.answer

    async def _look_after(self) -> None:
        """Returns when the link is broken; a heartbeat finds that out when nobody else does."""
        while self._connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._stirred.wait()
            self._stirred.clear()
            with contextlib.suppress(RedisAway):
                if self._connection is not None:
                    await self.ask("ping", ("PING",))

    async def _send(self) -> None:
        try:
            while self._waiting and self._connection is not None:
                together = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
                try:
                    await self._exchange(self._connection, together)
                except FAULTS as fault:
                    await self._break(fault, together)
                except BaseException:
                    await self._break(None, together)
                    raise
        finally:
            self._sender = None

    async def _exchange(self, connection: AbstractConnection, together: Sequence[_Question]) -> None:
        commands = [command for question in together for command in question.commands]
        async with _answered_by(together[0].asked_at + ANSWER_SECONDS):
            replies = iter(await exchange(connection, commands))
        now = asyncio.get_running_loop().time()
        for question in together:
            answer = [next(replies) for _ in question.commands]
            count, duration = self._answered[question.use]
            if any(isinstance(reply, Refusal) for reply in answer):
                count = self._metrics.redis_requests.labels(question.use, "refused")
            count.inc()
            duration.observe(now - question.asked_at)
            if not question.answer.done():
                question.answer.set_result(answer)

    async def _break(self, fault: Exception | None, asked: Sequence[_Question] = ()) -> None:
        """Turn away whoever waits, and whoever comes until there is a connection again."""
        connection, self._connection = self._connection, None
        unanswered = [*asked, *self._waiting]
        self._waiting.clear()
        for question in unanswered:
            self._metrics.redis_requests.labels(question.use, "failed").inc()
            if not question.answer.done():
                question.answer.set_exception(RedisAway())
                question.answer.exception()  # seen, also when whoever asked has left
        if connection is not None:
            if fault is not None:
                self._away.because(type(fault).__name__)
            self._stirred.set()
            self._changed()
            with contextlib.suppress(*FAULTS):
                await discard(self._client, connection)

    def _changed(self) -> None:
        for act in self._on_change:
            act()


@asynccontextmanager
async def _answered_by(deadline: float) -> AsyncIterator[None]:
    """Raises `TimeoutError` at the deadline; a loop that comes to it late gets a moment to read first."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def due() -> None:
            late = loop.time() > deadline + GRACE_SECONDS
            limit.reschedule(loop.time() + (GRACE_SECONDS if late else 0))

        timer = loop.call_at(deadline, due)
        try:
            yield
        finally:
            timer.cancel()
