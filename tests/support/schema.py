"""Empty databases with the newest schema, on either engine; migrated once a test process and copied from then on.

A folder has its database in it, on SQLite, or is bound to one on a PostgreSQL server.
"""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.support.postgres import PostgresServer, blocking

from comfy_api_service.db.migrate import upgrade, upgrade_server

NAME = "comfy-api.sqlite3"
DIALECTS = ("sqlite", "postgresql")
TEMPLATE = "template_of_tests"

_bound: dict[Path, str] = {}


@cache
def _template() -> bytes:
    folder = Path(tempfile.mkdtemp())
    try:
        upgrade(folder / NAME)
        return (folder / NAME).read_bytes()
    finally:
        shutil.rmtree(folder)


def lay(folder: Path) -> Path:
    """The SQLite database's path in `folder`, made if it is not there."""
    path = folder / NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_template())
    return path


def prepare(server: PostgresServer) -> None:
    """Make the database that the others are copies of."""
    server.execute(f"CREATE DATABASE {TEMPLATE}")
    blocking(lambda: upgrade_server(server.url(TEMPLATE)))


@contextmanager
def copied(server: PostgresServer) -> Iterator[str]:
    """The address of a database of its own on a server that was prepared."""
    name = f"test_{secrets.token_hex(6)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield server.url(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def bound(folder: Path, url: str) -> Iterator[None]:
    """What runs in this folder, or below it, uses the database at `url`."""
    before = _bound.get(folder)
    _bound[folder] = url
    try:
        yield
    finally:
        if before is None:
            del _bound[folder]
        else:
            _bound[folder] = before


def url_of(folder: Path) -> str | None:
    """The PostgreSQL database of what runs in this folder; None for SQLite."""
    return next((_bound[one] for one in (folder, *folder.parents) if one in _bound), None)
