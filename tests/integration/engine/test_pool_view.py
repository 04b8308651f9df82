"""The API's picture of the pool."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.stack import running

from comfy_api_service.db import backends
from comfy_api_service.db.base import Reader, Tx


async def test_a_picture_that_was_begun_earlier_does_not_replace_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as service:
        db, pool = service.db, service.pool
        read, begun, go_on = db.read, asyncio.Event(), asyncio.Event()

        async def late(function: Callable[[Reader], Awaitable[Any]]) -> Any:
            if function != pool._read:
                return await read(function)
            monkeypatch.setattr(db, "read", read)
            found = await read(function)
            begun.set()
            await go_on.wait()
            return found

        async def rename(tx: Tx) -> None:
            await tx.run("UPDATE backends SET name = 'renamed'")

        monkeypatch.setattr(db, "read", late)
        early = asyncio.create_task(pool.refresh())
        await begun.wait()
        await db.write(rename)
        newer = asyncio.create_task(pool.refresh())
        for _ in range(3):
            await db.read(backends.every)  # time for the newer one, if it does not wait
        go_on.set()
        await asyncio.gather(early, newer)
        assert [one.name for one in pool.view.backends] == ["renamed"]
