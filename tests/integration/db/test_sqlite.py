"""What the SQLite engine promises beyond that: synced commits, functions that wait for nothing else."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, OperationalError

import pytest
from tests.support.stack import until

from comfy_api_service.db import sqlite
from comfy_api_service.db.base import Reader, Tx
from comfy_api_service.db.sqlite import SqliteDatabase, connect
from comfy_api_service.domain.errors import Unavailable

pytestmark = pytest.mark.sqlite


async def test_commits_are_synced_and_logged_ahead(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "x.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


async def test_a_function_may_await_nothing_but_its_queries(db: SqliteDatabase) -> None:
    async def waits(tx: Tx) -> None:
        await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="nothing but its own queries"):
        await db.write(waits)
    assert await db.read(lambda tx: tx.all("SELECT * FROM timings")) == []


async def write_nothing(tx: Tx) -> None:
    await tx.one("SELECT 1")


async def test_what_comes_meanwhile_shares_the_commit_and_each_fails_alone(
    db: SqliteDatabase, commits: list[str]
) -> None:
    busy, go_on = threading.Event(), threading.Event()

    async def first(tx: Tx) -> str:
        busy.set()
        go_on.wait(10)
        await learn(tx, "first")
        return "first"

    async def fails(tx: Tx) -> None:
        await learn(tx, "fails")
        raise RuntimeError("alone")

    async def last(tx: Tx) -> list[str]:
        await learn(tx, "last")
        return [row["key"] for row in await tx.all("SELECT key FROM timings ORDER BY key")]

    tasks = [asyncio.ensure_future(db.write(function)) for function in (first, fails, last)]
    await asyncio.to_thread(busy.wait, 10)
    go_on.set()
    gave = await asyncio.gather(*tasks, return_exceptions=True)
    assert gave[0] == "first"
    assert isinstance(gave[1], RuntimeError)
    assert gave[2] == ["first", "last"]
    assert commits == ["COMMIT"]
    rows = await db.read(lambda tx: tx.all("SELECT key FROM timings ORDER BY key"))
    assert [row["key"] for row in rows] == ["first", "last"]


async def test_a_commit_that_fails_fails_all_that_shared_it(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db.write(write_nothing)
    busy, go_on = threading.Event(), threading.Event()

    async def first(tx: Tx) -> None:
        busy.set()
        go_on.wait(10)
        await learn(tx, "first")

    tasks = [asyncio.ensure_future(db.write(first)), asyncio.ensure_future(db.write(write_nothing))]
    await asyncio.to_thread(busy.wait, 10)
    monkeypatch.setattr(sqlite, "_commit", _full)
    go_on.set()
    gave = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in gave] == [Unavailable, Unavailable]
    monkeypatch.undo()
    assert await db.read(lambda tx: tx.all("SELECT * FROM timings")) == []


async def test_a_commit_waits_for_the_one_that_was_announced(
    db: SqliteDatabase, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FOLLOW_SECONDS", 10.0)
    announced = asyncio.ensure_future(db.write(lambda tx: learn(tx, "announced"), followed=True))
    done, _ = await asyncio.wait((announced,), timeout=0.2)
    assert not done
    assert await db.write(lambda tx: tx.all("SELECT key FROM timings"))
    await announced
    assert commits == ["COMMIT"]


async def test_a_read_sees_what_was_committed_before_it(db: SqliteDatabase) -> None:
    busy, go_on = threading.Barrier(3), threading.Event()

    async def slow(tx: Reader) -> int:
        await tx.all("SELECT * FROM timings")
        busy.wait(10)
        go_on.wait(10)
        return len(await tx.all("SELECT * FROM timings"))

    first = [asyncio.ensure_future(db.read(slow)) for _ in range(2)]
    await asyncio.to_thread(busy.wait, 10)
    await db.write(lambda tx: learn(tx, "later"))
    second = asyncio.ensure_future(db.read(lambda tx: tx.all("SELECT * FROM timings")))
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*first) == [0, 0]
    assert len(await second) == 1


async def learn(tx: Tx, key: str) -> None:
    await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 1, 1, 1)", {"key": key})


def _full(_: Connection) -> None:
    raise OperationalError("disk is full")


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the writer committed."""
    said: list[str] = []
    commit = sqlite._commit

    def spied(connection: Connection) -> None:
        said.append("COMMIT")
        commit(connection)

    monkeypatch.setattr(sqlite, "_commit", spied)
    return said


async def test_the_log_is_copied_into_the_file_beside_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the writer would have to do it itself, in a commit that others wait for."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_ROWS", 100)
    path = tmp_path / "x.sqlite3"
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == sqlite.CHECKPOINT_PAGES
    before = path.stat().st_size
    db = SqliteDatabase(path)
    try:
        for _ in range(2):
            await db.write(
                lambda tx: tx.many(
                    "INSERT INTO notes (text) VALUES (:text)", [{"text": "x" * 1000} for _ in range(99)]
                )
            )
        await until(lambda: path.stat().st_size > before + 100 * 1000)
    finally:
        await db.close()
