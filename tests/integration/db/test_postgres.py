"""What the PostgreSQL engine promises beyond that: conflicts run again, lost connections are named or replaced."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from tests.support.cutting_proxy import Cut, proxied
from tests.support.postgres import PostgresServer, server
from tests.support.schema import copied, prepare
from tests.support.stack import until

from comfy_api_service.db import connecting
from comfy_api_service.db import postgres as engine
from comfy_api_service.db.base import CommitUnknown, LockTimeout, Reader, Tx
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.domain.errors import Unavailable

COUNT = "UPDATE timings SET runs = runs + 1 WHERE key = :key"


@pytest.fixture
async def url(postgres: PostgresServer) -> AsyncIterator[str]:
    with copied(postgres) as address:
        yield address


@pytest.fixture
async def db(url: str) -> AsyncIterator[PostgresDatabase]:
    async with opened(url) as database:
        yield database


@asynccontextmanager
async def opened(url: str, connections: int = 6) -> AsyncIterator[PostgresDatabase]:
    database = await PostgresDatabase.open(url, application="comfy-api tests", connections=connections)
    try:
        yield database
    finally:
        await database.close()


async def lay_down(db: PostgresDatabase, *keys: str) -> None:
    sql = "INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 0, 0, 0)"
    await db.write(lambda tx: tx.many(sql, [{"key": key} for key in keys]))


async def runs(db: PostgresDatabase, key: str = "a") -> int:
    row = await db.read(lambda tx: tx.one("SELECT runs FROM timings WHERE key = :key", {"key": key}))
    assert row is not None
    return int(row["runs"])


async def test_a_deadlock_runs_again_and_both_get_through(db: PostgresDatabase) -> None:
    await lay_down(db, "a", "b")
    meeting = asyncio.Barrier(2)
    met: set[str] = set()

    def crossing(first: str, second: str) -> Callable[[Tx], Awaitable[None]]:
        async def cross(tx: Tx) -> None:
            await tx.run(COUNT, {"key": first})
            if first not in met:
                met.add(first)
                await meeting.wait()
            await tx.run(COUNT, {"key": second})

        return cross

    await asyncio.gather(db.write(crossing("a", "b")), db.write(crossing("b", "a")))
    assert (await runs(db, "a"), await runs(db, "b")) == (2, 2)


async def test_a_conflict_that_does_not_end_is_named(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PAUSES", (0.0, 0.0))
    tries = 0

    async def conflicts(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        await tx.run("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

    with pytest.raises(Unavailable) as raised:
        await db.write(conflicts)
    assert (tries, raised.value.retry_after) == (3, 5)


async def test_a_connection_that_died_unnoticed_is_replaced(db: PostgresDatabase, url: str) -> None:
    await lay_down(db, "a")
    await runs(db)
    await end_connections(url)
    await asyncio.gather(*(db.write(lambda tx: tx.run(COUNT, {"key": "a"})) for _ in range(5)))
    assert await runs(db) == 5


async def end_connections(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'comfy-api tests'"
    )
    await connection.close()


async def test_a_connection_lost_in_mid_transaction_leaves_nothing_and_runs_again(
    db: PostgresDatabase, url: str
) -> None:
    await lay_down(db, "a")
    tries = 0

    async def lost(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        await tx.run(COUNT, {"key": "a"})
        if tries == 1:
            await end_connections(url)
        await tx.run(COUNT, {"key": "a"})

    await db.write(lost)
    assert (await runs(db), tries) == (2, 2)


@pytest.mark.parametrize(("cut", "effects"), [(Cut.BEFORE, 0), (Cut.AFTER, 1)])
async def test_a_connection_lost_in_commit_is_told_and_never_repeated(
    db: PostgresDatabase, postgres: PostgresServer, url: str, cut: Cut, effects: int
) -> None:
    await lay_down(db, "a")
    async with (
        proxied(postgres.port) as proxy,
        opened(url.replace(str(postgres.port), str(proxy.port))) as through,
    ):
        await runs(through)
        proxy.cut_at(b"COMMIT", cut)
        with pytest.raises(CommitUnknown) as raised:
            await through.write(lambda tx: tx.run(COUNT, {"key": "a"}))
        assert proxy.cuts == 1
        assert raised.value.retry_after
        assert await runs(through) == effects


async def test_a_swallowed_error_is_not_taken_for_a_commit(db: PostgresDatabase) -> None:
    async def swallows(tx: Tx) -> None:
        with suppress(asyncpg.PostgresError):
            await tx.run("SELECT 1 / 0")

    with pytest.raises(RuntimeError, match="swallowed"):
        await db.write(swallows)


async def test_who_stops_in_mid_transaction_loses_its_locks(
    db: PostgresDatabase, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "IDLE_SECONDS", 0.2)
    await lay_down(db, "a")
    stopped = asyncio.Event()
    async with opened(url) as other:

        async def stops(tx: Tx) -> None:
            await tx.run(COUNT, {"key": "a"})
            if not stopped.is_set():
                stopped.set()
                await asyncio.sleep(1)
            await tx.run(COUNT, {"key": "a"})

        task = asyncio.ensure_future(other.write(stops))
        await stopped.wait()
        await db.write(lambda tx: tx.run("UPDATE timings SET runs = 10 WHERE key = 'a'"))
        await task
    assert await runs(db) == 12


async def test_a_lock_is_not_waited_for_for_ever(
    db: PostgresDatabase, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "LOCK_SECONDS", 0.1)
    await lay_down(db, "a")
    held = await asyncpg.connect(url)
    await held.execute("BEGIN")
    await held.execute("UPDATE timings SET runs = 7")
    async with opened(url) as other:
        with pytest.raises(LockTimeout):
            await other.write(lambda tx: tx.run(COUNT, {"key": "a"}))
    await held.close()


async def test_a_statement_is_not_waited_for_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "STATEMENT_SECONDS", 1.1)
    async with opened(url) as db:
        with pytest.raises(Unavailable):
            await db.read(lambda tx: tx.one("SELECT pg_sleep(60)"))
        assert await db.read(lambda tx: tx.one("SELECT 1"))


async def test_more_callers_than_connections_take_turns(url: str) -> None:
    async with opened(url, connections=2) as db:
        await lay_down(db, "a")
        await asyncio.gather(*(db.write(lambda tx: tx.run(COUNT, {"key": "a"})) for _ in range(50)))
        assert await runs(db) == 50


async def test_a_connection_says_whose_it_is_and_is_set_up(db: PostgresDatabase) -> None:
    async def shown(tx: Reader) -> dict[str, str]:
        names = ("application_name", "statement_timeout", "lock_timeout", "tcp_keepalives_idle")
        rows = [await tx.one(f"SELECT current_setting('{name}') AS value") for name in names]
        return {name: row["value"] for name, row in zip(names, rows, strict=True) if row is not None}

    assert await db.read(shown) == {
        "application_name": "comfy-api tests",
        "statement_timeout": "9s",
        "lock_timeout": "6s",
        "tcp_keepalives_idle": "5",
    }


async def test_a_server_that_is_killed_and_started_again() -> None:
    with server() as own:
        prepare(own)
        async with opened(own.url("template_of_tests")) as db:
            await lay_down(db, "a")
            own.stop(signal.SIGQUIT)
            for work in (db.read, db.write):
                with pytest.raises(Unavailable):
                    await work(lambda tx: tx.one("SELECT 1"))
            own.start()
            await db.write(lambda tx: tx.run(COUNT, {"key": "a"}))
            assert await runs(db) == 1


async def test_a_server_that_hangs_is_given_up_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "STATEMENT_SECONDS", 1.3)
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(engine, "FREE_SECONDS", 1.0)
    with server() as own:
        prepare(own)
        async with opened(own.url("template_of_tests")) as db:
            await lay_down(db, "a")
            await runs(db)
            own.send(signal.SIGSTOP)
            for work in (db.read, db.write):
                with pytest.raises(Unavailable):
                    async with asyncio.timeout(
                        5
                    ):  # not as long again as its library tries to cancel the statement
                        await work(lambda tx: tx.one("SELECT 1"))
            own.send(signal.SIGCONT)

            async def answers() -> bool:
                with suppress(Unavailable):
                    return await runs(db) == 0
                return False

            await until(answers)
