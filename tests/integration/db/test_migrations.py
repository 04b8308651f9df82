"""The schema: one line of migrations that ends in the tables as the code knows them, on either engine."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support.postgres import PostgresServer
from tests.support.schema import copied

from comfy_api_service.db import migrate
from comfy_api_service.db.problems import DatabaseUnusable
from comfy_api_service.db.tables import TEXT, metadata


@pytest.fixture
def empty(postgres: PostgresServer) -> Iterator[str]:
    """A database without tables."""
    name = "empty_one"
    postgres.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_code_knows_every_revision_and_the_newest() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == migrate.HEAD
    assert {script.revision for script in scripts.walk_revisions()} == migrate.KNOWN


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


def test_migrations_end_in_the_tables_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    assert migrate.upgrade(path) == migrate.HEAD
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            assert differences(connection) == []
    finally:
        engine.dispose()
    assert migrate.upgrade(path) == migrate.HEAD


def test_lanes_that_were_served_before_there_was_a_mark_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            for name, entered, queued in (("new", 2, 2), ("old", 2, 1)):
                row = {"name": name, "entered": entered, "queued": queued}
                connection.execute(
                    text("INSERT INTO accounts (id, name, tier, created_at) VALUES (:name, '', 'free', 0)"),
                    row,
                )
                connection.execute(
                    text("INSERT INTO lanes (account_id, entered, queued) VALUES (:name, :entered, :queued)"),
                    row,
                )
            connection.commit()
            migrate.upgrade(path)
            served = connection.execute(
                text("SELECT account_id, served FROM lanes ORDER BY account_id")
            ).all()
    finally:
        engine.dispose()
    assert served == [("new", 0), ("old", 1)]


async def test_migrations_end_in_the_tables_of_the_code_on_a_server(empty: str) -> None:
    assert await migrate.upgrade_server(empty) == migrate.HEAD
    engine = create_async_engine(empty.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    assert await migrate.upgrade_server(empty) == migrate.HEAD


async def test_text_is_compared_by_its_bytes_and_hot_tables_keep_room(empty: str) -> None:
    await migrate.upgrade_server(empty)
    connection = await asyncpg.connect(empty)
    collations = await connection.fetch(
        """SELECT table_name, column_name FROM information_schema.columns
           WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"""
    )
    roomy = await connection.fetch("SELECT relname FROM pg_class WHERE reloptions::text LIKE '%fillfactor%'")
    await connection.close()
    assert collations == []
    assert all(column.type is TEXT for table in metadata.tables.values() for column in table.columns
               if column.type.python_type is str)  # fmt: skip
    assert {"lanes", "lane_needs", "workers", "backends", "jobs"} <= {row["relname"] for row in roomy}


async def test_several_that_start_at_once_do_not_collide(empty: str) -> None:
    assert await asyncio.gather(*(migrate.upgrade_server(empty) for _ in range(5))) == [migrate.HEAD] * 5


async def test_a_migration_that_fails_leaves_nothing(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE timings (key text)")  # in the way of a table in mid-migration
    with pytest.raises(DatabaseUnusable):
        await migrate.upgrade_server(empty)
    left = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tablename"] for row in left] == ["timings"]
    await connection.close()


def test_a_schema_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(migrate.SchemaTooNew, match="9999"):
        migrate.upgrade(path)


async def test_a_schema_of_a_newer_version_is_refused_on_a_server(postgres: PostgresServer) -> None:
    with copied(postgres) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.close()
        with pytest.raises(migrate.SchemaTooNew, match="9999"):
            await migrate.upgrade_server(url)


def test_every_constraint_is_named_by_the_convention() -> None:
    for table in metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"a constraint of {table.name} has no name"
            assert str(constraint.name).startswith(("pk_", "fk_", "uq_", "ck_"))
        for index in table.indexes:
            assert str(index.name).startswith("ix_")


def columns(path: Path) -> dict[tuple[str, str], tuple[str, bool]]:
    """Type, and whether an insert may leave it out, of every column."""
    with closing(sqlite3.connect(path)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            (table, name): (kind, not required or default is not None)
            for table in tables
            for _, name, kind, required, default, _ in db.execute(f"PRAGMA table_info({table})")
        }


def to_the_version_before(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, sorted(migrate.KNOWN)[-2])
    connection.commit()


def test_the_newest_migration_takes_nothing_from_processes_of_the_version_before(tmp_path: Path) -> None:
    """They run on while it is applied: what they read and write must be there, and nothing new be asked of them."""
    path = tmp_path / "x.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        to_the_version_before(connection)
    engine.dispose()
    old = columns(path)
    migrate.upgrade(path)
    takes_nothing(old, columns(path))


async def test_nor_does_it_on_a_server(empty: str) -> None:
    """Functions that they call are there too, with the same arguments."""
    engine = create_async_engine(empty.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        await connection.run_sync(to_the_version_before)
    await engine.dispose()
    old, called = await columns_on(empty), await functions_on(empty)
    await migrate.upgrade_server(empty)
    takes_nothing(old, await columns_on(empty))
    assert called
    assert called <= await functions_on(empty)


async def columns_on(url: str) -> dict[tuple[str, str], tuple[str, bool]]:
    asked = """SELECT table_name, column_name, data_type, is_nullable = 'YES' OR column_default IS NOT NULL
               OR is_identity = 'YES' FROM information_schema.columns WHERE table_schema = current_schema()"""
    return {(table, name): (kind, free) for table, name, kind, free in await fetched(url, asked)}


async def functions_on(url: str) -> set[str]:
    asked = """SELECT p.oid::regprocedure || ' ' || pg_get_function_arguments(p.oid)
                 || ' ' || pg_get_function_result(p.oid) FROM pg_proc p
               WHERE p.pronamespace = current_schema()::regnamespace"""
    return {row[0] for row in await fetched(url, asked)}


async def fetched(url: str, asked: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(asked))
    finally:
        await connection.close()


def takes_nothing(
    old: dict[tuple[str, str], tuple[str, bool]], new: dict[tuple[str, str], tuple[str, bool]]
) -> None:
    assert old
    assert {column: new.get(column, ("", False))[0] for column in old} == {
        column: kind for column, (kind, _) in old.items()
    }
    known = {table for table, _ in old}
    assert [one for one in new.keys() - old.keys() if one[0] in known and not new[one][1]] == []
