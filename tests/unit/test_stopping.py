"""Background work ends when it is told to."""

import asyncio

import pytest

from comfy_api_service.bootstrap import parts


async def test_work_that_lost_a_cancellation_is_stopped_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "STOP_AGAIN_SECONDS", 0.01)
    lost: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.append("one")  # as `asyncio.wait_for` may, when what it waits for ends at the same moment
        await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    stopping = asyncio.create_task(parts.stop(task))
    await asyncio.wait((task,), timeout=10)  # a time-out around the stop would cancel the work itself
    ended = task.done()
    task.cancel()
    await stopping
    assert ended
    assert lost == ["one"]
    assert task.cancelled()


async def test_what_the_work_raised_is_raised() -> None:
    async def work() -> None:
        raise LookupError("a fault of the work")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    with pytest.raises(LookupError):
        await parts.stop(task)
