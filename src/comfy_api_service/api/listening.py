"""One listener of a stream: told in order, paced, never waited for by anybody else.

Only the listener's own tasks wait for it: a slow one fills its own bounded mailbox, and one that takes
nothing for `SEND_SECONDS` is let go.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from enum import Enum, auto
from typing import Final, TypeVar

from starlette.websockets import WebSocketDisconnect

from comfy_api_service.api.draining import Draining
from comfy_api_service.api.pacing import Pacing
from comfy_api_service.services.views import Notice

T = TypeVar("T")
Revoked = Callable[[Callable[[], None]], Callable[[], None]]
"""Calls what it is given when the listener's credential is no good any more, until what it gives is called."""

SEND_SECONDS: Final = 30.0
"""How long one message may take to leave before its listener is let go."""


class End(Enum):
    """Why a listener is no longer told anything."""

    DONE = auto()
    LEFT = auto()
    DRAINING = auto()
    TOO_SLOW = auto()
    REVOKED = auto()


class Listener:
    """Tells notices until their end, or until something stops it. Used once, by one task."""

    __slots__ = ("_end", "_flusher", "_lock", "_loop", "_main", "_pacing", "_tell", "_timer")

    def __init__(self, tell: Callable[[Notice], Awaitable[None]]) -> None:
        self._tell = tell
        self._pacing = Pacing()
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._main: asyncio.Task[object] | None = None
        self._end: End | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flusher: asyncio.Task[None] | None = None

    async def run(
        self,
        notices: AsyncIterator[Notice],
        *,
        left: Callable[[], Awaitable[object]],
        draining: Draining,
        revoked: Revoked,
    ) -> End:
        """`left` returns when the caller has gone. Raises what `notices` raises."""
        self._main = asyncio.current_task()
        watch = self._loop.create_task(self._watch(left))
        forget = draining.on_begin(self._drain)
        unwatch = revoked(self._revoke)
        try:
            if self._end is None:
                await self._tell_all(notices)
        except asyncio.CancelledError:
            if self._end is None or self._main is None or self._main.uncancel() > 0:
                raise
        finally:
            self._main = None
            forget()
            unwatch()
            for pending in (self._timer, self._flusher, watch):
                if pending is not None:
                    pending.cancel()
            await close(notices)
        return self._end or End.DONE

    async def say(self, send: Callable[[T], Awaitable[None]], what: T) -> None:
        """Send something in between, in its turn."""
        async with self._lock:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(what)
            except TimeoutError:
                self._stop(End.TOO_SLOW)
            except (OSError, WebSocketDisconnect):
                self._stop(End.LEFT)

    async def _tell_all(self, notices: AsyncIterator[Notice]) -> None:
        async for notice in notices:
            if not self._pacing.admit(notice, self._loop.time()):
                self._flush_later()
                continue
            await self.say(self._tell, notice)
            if self._end is not None:
                return

    def _stop(self, end: End) -> None:
        if self._end is not None:
            return
        self._end = end
        if self._main is not None and self._main is not asyncio.current_task():
            self._main.cancel()

    def _drain(self) -> None:
        self._stop(End.DRAINING)

    def _revoke(self) -> None:
        self._stop(End.REVOKED)

    async def _watch(self, left: Callable[[], Awaitable[object]]) -> None:
        await left()
        self._stop(End.LEFT)

    def _flush_later(self) -> None:
        wait = self._pacing.wait(self._loop.time())
        if wait is not None and self._timer is None and self._flusher is None:
            self._timer = self._loop.call_later(wait, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        self._flusher = self._loop.create_task(self._flush())

    async def _flush(self) -> None:
        for notice in self._pacing.due(self._loop.time()):
            await self.say(self._tell, notice)
        self._flusher = None
        self._flush_later()


async def close(notices: AsyncIterator[Notice]) -> None:
    """Give back what the notices hold, the mailbox above all, without waiting for a collector."""
    if isinstance(notices, AsyncGenerator):
        await notices.aclose()
