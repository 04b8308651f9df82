"""Bring the schema up to date, at every start, under a lock. A schema from a newer version is refused."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

HEAD: Final = "0002"
"""The newest revision in migrations/versions; a test holds it to that. Knowing it spares every start but the
first the cost of loading the migration tool."""
KNOWN: Final = frozenset({"0001", "0002"})
MIGRATIONS: Final = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was written by a newer version of the service."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"The database is of a newer version (schema {revision}; this version knows up to {HEAD})."
        )
        self.revision = revision


def revision_of(path: Path) -> str | None:
    """The schema's revision; None for an absent or empty database. Raises `sqlite3.Error` for a broken one."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as fault:
            if "no such table" in str(fault):
                return None
            raise
    return None if row is None else str(row[0])


def upgrade(path: Path) -> str:
    """Migrate the SQLite database at `path`; returns its revision. Raises `SchemaTooNew`."""
    with _locked(path.with_suffix(".migrate.lock")):
        revision = revision_of(path)
        if revision == HEAD:
            return HEAD
        if revision is not None and revision not in KNOWN:
            raise SchemaTooNew(revision)
        _run(path)
    return HEAD


def _run(path: Path) -> None:
    from alembic import command  # noqa: PLC0415 - slow to load, and needed at the first start only
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415

    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process migrates at a time; the others wait."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
