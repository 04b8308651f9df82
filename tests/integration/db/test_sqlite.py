"""What the SQLite engine promises: whole transactions, synced commits, readers that cannot write."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from comfy_api_service.db.base import Tx
from comfy_api_service.db.sqlite import SqliteDatabase, connect
from comfy_api_service.domain.errors import Unavailable


async def test_commits_are_synced_and_logged_ahead(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "x.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


async def test_a_function_that_raises_leaves_nothing(db: SqliteDatabase) -> None:
    async def half(tx: Tx) -> None:
        await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await db.write(half)
    assert await db.read(lambda tx: tx.all("SELECT * FROM timings")) == []


async def test_a_function_may_await_nothing_but_its_queries(db: SqliteDatabase) -> None:
    async def waits(tx: Tx) -> None:
        await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="nothing but its own queries"):
        await db.write(waits)
    assert await db.read(lambda tx: tx.all("SELECT * FROM timings")) == []


async def test_a_reader_cannot_write(db: SqliteDatabase) -> None:
    async def write(tx: Tx) -> None:
        await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")

    with pytest.raises(Unavailable):
        await db.read(write)  # type: ignore[arg-type]


async def test_a_caller_that_leaves_does_not_undo_a_write(db: SqliteDatabase) -> None:
    async def write(tx: Tx) -> None:
        await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")

    task = asyncio.ensure_future(db.write(write))
    await asyncio.sleep(0)
    task.cancel()
    assert len(await db.read(lambda tx: tx.all("SELECT * FROM timings"))) <= 1
    await db.write(write_nothing)
    assert len(await db.read(lambda tx: tx.all("SELECT * FROM timings"))) == 1


async def write_nothing(tx: Tx) -> None:
    await tx.one("SELECT 1")
