"""What every engine promises: whole transactions, readers that cannot write, callers that may leave."""

import asyncio

import pytest
from tests.support.stack import until

from comfy_api_service.db.base import Database, Tx, dumps
from comfy_api_service.domain.errors import Unavailable


async def write(tx: Tx) -> None:
    await tx.run("INSERT INTO timings (key, runs, seconds, updated_at) VALUES ('a', 1, 1, 1)")


async def written(db: Database) -> list[str]:
    return [row["key"] for row in await db.read(lambda tx: tx.all("SELECT key FROM timings ORDER BY key"))]


async def test_a_function_that_raises_leaves_nothing(db: Database) -> None:
    async def half(tx: Tx) -> None:
        await write(tx)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await db.write(half)
    assert await written(db) == []


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(Unavailable):
        await db.read(write)  # type: ignore[arg-type]
    assert await written(db) == []


async def test_a_caller_that_leaves_does_not_undo_a_write(db: Database) -> None:
    task = asyncio.ensure_future(db.write(write))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def there() -> bool:
        return await written(db) == ["a"]

    await until(there)


async def test_what_is_under_way_is_finished_before_it_closes(db: Database) -> None:
    task = asyncio.ensure_future(db.write(write))
    await asyncio.sleep(0)
    await db.close()
    await task
    with pytest.raises(Unavailable):
        await db.read(lambda tx: tx.all("SELECT 1"))
    await db.close()


async def test_a_fault_of_the_code_stays_what_it_is(db: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as raised:
        await db.read(lambda tx: tx.all("SELECT * FROM no_such_table"))
    assert not isinstance(raised.value, Unavailable)


async def test_many_rows_are_those_that_were_given(db: Database) -> None:
    async def several(tx: Tx) -> list[tuple[str, float]]:
        sql = "INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 1, :seconds, 0)"
        await tx.together((sql, [{"seconds": n / 2, "key": f"k{n:03}"} for n in range(75)]))
        return [
            (row["key"], row["seconds"])
            for row in await tx.all("SELECT key, seconds FROM timings ORDER BY key")
        ]

    assert await db.write(several) == [(f"k{n:03}", n / 2) for n in range(75)]


async def test_several_queries_in_one_go(db: Database) -> None:
    async def several(tx: Tx) -> None:
        sql = "INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, :runs, :seconds, 0)"
        values = [0.1, 1e-300, 123456789.123456789, 2.0]
        await tx.many(sql, [{"key": f"ü{n}", "runs": 2**53 + n, "seconds": v} for n, v in enumerate(values)])
        every = "SELECT key, runs, seconds, NULL AS empty FROM timings WHERE runs > :least ORDER BY key DESC"
        found, none, one = await tx.several(
            (every, {"least": 5}),
            ("SELECT key FROM timings WHERE key = :key", {"key": "absent"}),
            (f"SELECT key FROM timings WHERE key = :key{tx.dialect.locking('timings')}", {"key": "ü1"}),
        )
        assert [(row["key"], row["runs"], row["seconds"], row["empty"]) for row in found] == [
            (f"ü{n}", 2**53 + n, v, None) for n, v in reversed(list(enumerate(values)))
        ]
        assert list(none) == []
        assert [row["key"] for row in one] == ["ü1"]

    await db.write(several)


async def test_rows_touched_and_rows_returned(db: Database) -> None:
    async def several(tx: Tx) -> None:
        sql = "INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 1, :seconds, 0)"
        await tx.many(sql, [])
        await tx.many(sql, [{"key": "one", "seconds": 1}])
        await tx.many(sql, [{"key": f"k{n}", "seconds": n / 2} for n in range(5)])
        assert await tx.run("UPDATE timings SET runs = 2 WHERE seconds >= :least", {"least": 1.0}) == 4
        assert await tx.run("DELETE FROM timings WHERE key = 'absent'") == 0
        row = await tx.one(
            "UPDATE timings SET runs = runs + 1 WHERE key = :key RETURNING runs", {"key": "k4"}
        )
        assert row is not None
        assert row["runs"] == 3
        keys = dumps(["k1", "k2", "absent", 'a "quoted" one', "ü"])
        among = f"SELECT key FROM timings WHERE {tx.dialect.among('key', 'keys')} ORDER BY key"
        assert [row["key"] for row in await tx.all(among, {"keys": keys})] == ["k1", "k2"]
        assert await tx.all(among, {"keys": "[]"}) == []

    await db.write(several)
    assert await written(db) == ["k0", "k1", "k2", "k3", "k4", "one"]


async def test_text_sorts_by_its_bytes(db: Database) -> None:
    keys = ["a", "B", "_", "Z", "ä", "a-b", "ab", "0", "é", "e"]

    async def put(tx: Tx) -> None:
        await tx.many(
            "INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 1, 1, 0)",
            [{"key": key} for key in keys],
        )

    await db.write(put)
    assert await written(db) == sorted(keys)
