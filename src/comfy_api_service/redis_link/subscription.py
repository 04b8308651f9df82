"""The connection that listens: one a process, to a few channels, from its first day to its last.

It is known to be deaf within two seconds, and begins anew with pauses. What was said in between is lost:
`changed` tells when.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio.client import PubSub

from comfy_api_service.redis_link.client import FAULTS
from comfy_api_service.redis_link.link import BEAT_SECONDS, CONNECT_SECONDS, RedisLink
from comfy_api_service.redis_link.outage import Outage
from comfy_api_service.redis_link.pauses import Pauses

BREATH: Final = 100
"""Messages after which everybody else gets a turn."""


class Subscription:
    def __init__(
        self,
        link: RedisLink,
        channels: Sequence[str],
        *,
        hear: Callable[[bytes], None],
        changed: Callable[[], None],
    ) -> None:
        """`hear` gets what was sent; `changed` is called whenever `up` has changed."""
        self.up = False
        self._link = link
        self._channels = channels
        self._hear = hear
        self._changed = changed
        self._deaf = Outage("redis_deaf", "redis_heard")

    async def run(self) -> None:
        """Listen, until cancelled."""
        pauses = Pauses()
        while True:
            pubsub = self._link.pubsub()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._subscribe(pubsub)
                pauses.reset()
                self._deaf.over()
                self._set(up=True)
                await self._listen(pubsub)
            except FAULTS as fault:
                self._deaf.because(type(fault).__name__)
                self._link.check_now()
            finally:
                self._set(up=False)
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pauses.next())

    async def _subscribe(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(*self._channels)
        heard = 0
        while heard < len(self._channels):
            message = await pubsub.get_message(timeout=CONNECT_SECONDS)
            heard += message is not None and message["type"] == "subscribe"

    async def _listen(self, pubsub: PubSub) -> None:
        """Raises one of `FAULTS`, a `TimeoutError` if neither a message nor an echo comes."""
        asked = False
        heard = 0
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=BEAT_SECONDS)
            if message is None:
                if asked:
                    raise TimeoutError
                await pubsub.ping()
            elif message["type"] == "message":
                self._hear(message["data"])
            asked = message is None
            heard += 1
            if heard % BREATH == 0:
                await asyncio.sleep(0)

    def _set(self, *, up: bool) -> None:
        if self.up != up:
            self.up = up
            self._changed()
