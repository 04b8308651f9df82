"""An empty database with the newest schema, migrated once a test process and copied from then on."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from comfy_api_service.db.migrate import upgrade

NAME = "comfy-api.sqlite3"


@cache
def _template() -> bytes:
    folder = Path(tempfile.mkdtemp())
    try:
        upgrade(folder / NAME)
        return (folder / NAME).read_bytes()
    finally:
        shutil.rmtree(folder)


def lay(folder: Path) -> Path:
    """The database's path in `folder`, made if it is not there."""
    path = folder / NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_template())
    return path
