"""The whole service with every signal going through Redis: what is said at one end is heard at another."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractContextManager, asynccontextmanager

import pytest
from tests.support.bus import Bus, bus

from comfy_api_service.bootstrap import parts
from comfy_api_service.domain.events import Preview
from comfy_api_service.signals.base import Latest, Mailbox, Note, Signals
from comfy_api_service.telemetry import Metrics


class Crossing:
    """As if whoever speaks and whoever hears were never in the same process."""

    def __init__(self, mouth: Bus, ear: Bus) -> None:
        self.mouth = mouth
        self.ear = ear
        self._says = mouth.signals
        self._hears = ear.signals

    def wake(self) -> bool:
        return self._says.wake()

    def publish(self, note: Note) -> None:
        self._says.publish(note)

    def ask_cancel(self, job_id: str) -> None:
        self._says.ask_cancel(job_id)

    def pool_changed(self) -> None:
        self._says.pool_changed()

    @property
    def wakes(self) -> int:
        return self._hears.wakes

    @property
    def poll_seconds(self) -> float:
        return self._hears.poll_seconds

    @property
    def connected(self) -> bool:
        return self._hears.connected

    async def woken(self, seen: int, timeout: float) -> None:
        await self._hears.woken(seen, timeout)

    async def latest(self, job_ids: Collection[str]) -> Mapping[str, Latest]:
        return await self._hears.latest(job_ids)

    async def preview(self, job_id: str, attempt: int) -> Preview | None:
        return await self._hears.preview(job_id, attempt)

    def listen_job(self, job_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]:
        return self._hears.listen_job(job_id, previews=previews)

    def listen_account(self, account_id: str, *, previews: bool) -> AbstractContextManager[Mailbox]:
        return self._hears.listen_account(account_id, previews=previews)

    def on_cancel(self, act: Callable[[str], None]) -> Callable[[], None]:
        return self._hears.on_cancel(act)

    def on_pool_change(self, act: Callable[[], None]) -> Callable[[], None]:
        return self._hears.on_pool_change(act)


def cross(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let the composition root wire services this way, whatever their settings say of Redis."""

    @asynccontextmanager
    async def signals(_link: object, _metrics: Metrics, *, listens: bool) -> AsyncIterator[Signals]:
        async with bus(url) as mouth, bus(url, listens=listens) as ear:
            yield Crossing(mouth, ear)

    monkeypatch.setattr(parts, "open_signals", signals)
