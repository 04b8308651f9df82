"""The schema: one line of migrations that ends in the tables as the code knows them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from comfy_api_service.db import migrate
from comfy_api_service.db.tables import metadata


def test_the_code_knows_every_revision_and_the_newest() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == migrate.HEAD
    assert {script.revision for script in scripts.walk_revisions()} == migrate.KNOWN


def test_migrations_end_in_the_tables_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    assert migrate.upgrade(path) == migrate.HEAD
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
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


def test_a_schema_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(migrate.SchemaTooNew, match="9999"):
        migrate.upgrade(path)


def test_every_constraint_is_named_by_the_convention() -> None:
    for table in metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"a constraint of {table.name} has no name"
            assert str(constraint.name).startswith(("pk_", "fk_", "uq_", "ck_"))
        for index in table.indexes:
            assert str(index.name).startswith("ix_")
