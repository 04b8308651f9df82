"""The thread that proves a worker's life goes on after whatever fault, and there is never a second one."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.support.stack import until

from comfy_api_service.db.base import Database
from comfy_api_service.domain import leases
from comfy_api_service.services import forever
from comfy_api_service.worker import lease
from comfy_api_service.worker.lease import SharedLease


class Rows:
    """A database in which one other worker stands still; fails as long as it is told to, as no database should."""

    def __init__(self) -> None:
        self.fails = False
        self.alive = True
        self.looks = 0
        self.told = 0
        """How often the worker was told that it is taken for dead."""
        self.proofs = 0
        self.failed: Counter[str] = Counter()

    def _answer(self, to: str) -> None:
        if self.fails:
            self.failed[to] += 1
            raise RuntimeError("a fault of the code")

    async def open(self) -> Database:
        self._answer("opening")
        return cast("Database", self)

    async def write(self, function: Callable[[Any], Awaitable[Any]]) -> bool:
        del function
        self._answer("proof")
        self.proofs += 1
        return self.alive

    async def read(self, function: Callable[[Any], Awaitable[Any]]) -> dict[str, int]:
        del function
        self._answer("look")
        self.looks += 1
        return {"wrk_me": self.proofs, "wrk_other": 7}

    async def close(self) -> None:
        pass

    def replaced(self) -> None:
        self.told += 1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything comes a hundred times sooner."""
    monkeypatch.setattr(forever, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(lease, "AGAIN_SECONDS", 0.005)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.001)
    for name in ("LIFE_SECONDS", "WATCH_SECONDS", "POSTING_SECONDS"):
        monkeypatch.setattr(lease, name, getattr(lease, name) / 100)
    monkeypatch.setattr(leases, "DEAD_SECONDS", leases.DEAD_SECONDS / 100)


@asynccontextmanager
async def held(rows: Rows, dead: list[str] | None = None) -> AsyncIterator[SharedLease]:
    found = [] if dead is None else dead
    one = SharedLease(
        "wrk_me", rows.open, on_dead=lambda worker, _: found.append(worker), on_replaced=rows.replaced
    )
    await one.start(time.monotonic())
    try:
        yield one
    finally:
        await one.stop()


async def test_a_worker_that_cannot_prove_its_life_holds_nothing_until_the_fault_has_passed() -> None:
    rows = Rows()
    async with held(rows) as one:
        await until(lambda: rows.proofs > 0)
        rows.fails = True
        await until(lambda: rows.failed["proof"] > 1 and not one.holds)
        rows.fails = False
        async with asyncio.timeout(10):
            await one.proven()


async def test_a_watch_that_failed_begins_anew() -> None:
    rows, dead = Rows(), list[str]()
    async with held(rows, dead):
        await until(lambda: rows.proofs > 0)
        rows.fails = True
        await until(lambda: rows.failed["look"] > 1)
        dead.clear()
        rows.fails = False
        await until(lambda: "wrk_other" in dead)


async def test_who_is_taken_for_dead_is_told_once_and_holds_nothing() -> None:
    rows = Rows()
    rows.alive = False
    async with held(rows) as one:
        await until(lambda: rows.told > 0)
        looks = rows.looks
        await until(lambda: rows.looks > looks + 5)
        assert rows.told == 1
        assert not one.holds


async def test_connections_that_cannot_be_opened_are_tried_again() -> None:
    rows = Rows()
    rows.fails = True
    async with held(rows):
        await until(lambda: rows.failed["opening"] > 1)
        rows.fails = False
        await until(lambda: rows.proofs > 0)


async def test_a_worker_whose_entering_took_too_long_holds_nothing_before_it_proves_its_life() -> None:
    rows = Rows()
    rows.fails = True
    async with held(rows) as one:
        await one.start(time.monotonic() - leases.POSTING_SECONDS)
        assert not one.holds
        rows.fails = False
        async with asyncio.timeout(10):
            await one.proven()


async def test_a_second_start_ends_the_first() -> None:
    before = set(threading.enumerate())
    rows = Rows()
    async with held(rows) as one:
        await one.start(time.monotonic())
        await until(lambda: rows.proofs > 0)
        assert [thread.name for thread in set(threading.enumerate()) - before].count("lease") == 1
