"""One listener, over a made-up stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from comfy_api_service.api import listening
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.listening import End, Listener
from comfy_api_service.domain.events import Event, EventType, Progress
from comfy_api_service.services.views import Durable, Moved, Notice

JOB = "job_0123456789ABCDEFGHJKMNPQRS"


def durable(seq: int) -> Durable:
    return Durable(Event(JOB, seq, EventType.RUNNING, "running", 0.0))


class Stage:
    """A listener with its surroundings: what it was told, and whether its stream was closed."""

    def __init__(self, *notices: Notice, ends: bool = True) -> None:
        self.told: list[Notice] = []
        self.closed = False
        self.gone = asyncio.Event()
        self.draining = Draining()
        self._notices = notices
        self._ends = ends

    async def stream(self) -> AsyncIterator[Notice]:
        try:
            for notice in self._notices:
                yield notice
                await asyncio.sleep(0)
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    async def tell(self, notice: Notice) -> None:
        self.told.append(notice)

    def watch(self, gone: Callable[[], None]) -> Callable[[], None]:
        self.revoke = gone
        return lambda: None

    async def run(self, tell: Any = None) -> End:
        listener = Listener(tell or self.tell)
        return await listener.run(
            self.stream(), left=self.gone.wait, draining=self.draining, revoked=self.watch
        )


async def test_told_in_order_to_the_end() -> None:
    stage = Stage(durable(1), durable(2), durable(3))
    assert await stage.run() is End.DONE
    assert stage.told == [durable(1), durable(2), durable(3)]
    assert stage.closed


async def test_what_is_held_comes_later_and_after_it_nothing_older() -> None:
    stage = Stage(*(Moved(JOB, Progress(percent)) for percent in range(5)), ends=False)
    running = asyncio.create_task(stage.run())
    await asyncio.sleep(0.3)
    assert stage.told == [Moved(JOB, Progress(0)), Moved(JOB, Progress(4))]
    stage.gone.set()
    assert await running is End.LEFT


@pytest.mark.parametrize(("how", "end"), [("gone", End.LEFT), ("draining", End.DRAINING)])
async def test_stopped_from_outside(how: str, end: End) -> None:
    stage = Stage(durable(1), ends=False)
    running = asyncio.create_task(stage.run())
    await asyncio.sleep(0.01)
    if how == "gone":
        stage.gone.set()
    else:
        stage.draining.begin()
    assert await running is end
    assert stage.closed
    assert stage.draining._acts == set()


async def test_a_service_that_stops_tells_newcomers_nothing() -> None:
    stage = Stage(durable(1), ends=False)
    stage.draining.begin()
    assert await stage.run() is End.DRAINING
    assert stage.told == []


async def test_one_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SEND_SECONDS", 0.05)
    stage = Stage(durable(1), durable(2))

    async def stuck(_: Notice) -> None:
        await asyncio.Event().wait()

    assert await stage.run(stuck) is End.TOO_SLOW
    assert stage.closed


async def test_one_whose_connection_breaks_has_left() -> None:
    stage = Stage(durable(1), durable(2))

    async def broken(_: Notice) -> None:
        raise ConnectionResetError

    assert await stage.run(broken) is End.LEFT


async def test_a_fault_of_the_stream_is_raised_and_a_cancel_passes_through() -> None:
    stage = Stage(durable(1), ends=False)

    async def fault(_: Notice) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await stage.run(fault)
    assert stage.closed
    running = asyncio.create_task(Stage(ends=False).run())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
