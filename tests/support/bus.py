"""Signals over Redis as the composition root wires them, and what a listener heard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import generate_latest
from tests.support.stack import until

from comfy_api_service.bootstrap.parts import stop
from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.redis_link.address import parse
from comfy_api_service.redis_link.link import RedisLink
from comfy_api_service.signals.base import Look, Mailbox, Note
from comfy_api_service.signals.redis import RedisSignals
from comfy_api_service.telemetry import Metrics

JOB = "job_0123456789ABCDEFGHJKMNPQRS"
OTHER = "job_ZZZZ456789ABCDEFGHJKMNPQRS"
ACCOUNT = "acc_one"
LIMIT = 15.0


class Bus:
    """One process's end: its signals, its link, its figures."""

    def __init__(self, url: str, *, listens: bool = True) -> None:
        self.metrics = Metrics()
        self.link = RedisLink(parse(url), self.metrics)
        self.signals = RedisSignals(self.link, self.metrics, listens=listens)

    def figure(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None, (name, labels, generate_latest(self.metrics.registry).decode())
        return found

    def is_connected(self) -> bool:
        return self.signals.connected

    def subscribed(self) -> bool:
        return self.signals._subscription.up

    def is_away(self) -> bool:
        return not self.signals.connected

    async def connected(self) -> None:
        await until(self.is_connected)

    async def away(self) -> None:
        await until(self.is_away)


@asynccontextmanager
async def bus(url: str, *, connected: bool = True, listens: bool = True) -> AsyncIterator[Bus]:
    one = Bus(url, listens=listens)
    task = asyncio.create_task(one.signals.run())
    try:
        if connected:
            await one.connected()
        yield one
    finally:
        await one.signals.flush()
        await stop(task)
        await one.link.close()


def event(
    seq: int = 2, kind: EventType = EventType.RUNNING, *, job: str = JOB, attempt: int = 1, **data: object
) -> Note:
    status = {EventType.DONE: "succeeded", EventType.RUNNING: "running"}.get(kind, "queued")
    return Note(job, ACCOUNT, attempt, Event(job, seq, kind, status, 1000.0, data))


def progress(percent: float, *, job: str = JOB, attempt: int = 1) -> Note:
    return Note(job, ACCOUNT, attempt, Progress(percent, 1, 20, "3", "KSampler"))


def preview(content: bytes = b"picture", *, job: str = JOB, attempt: int = 1) -> Note:
    return Note(job, ACCOUNT, attempt, Preview("image/jpeg", content))


async def heard(mailbox: Mailbox) -> Note:
    """The next note, past hints to look."""
    async with asyncio.timeout(LIMIT):
        while isinstance(note := await mailbox.get(), Look):
            pass
        return note


async def told_to_look(mailbox: Mailbox) -> None:
    """Past everything else."""
    async with asyncio.timeout(LIMIT):
        while not isinstance(await mailbox.get(), Look):
            pass
