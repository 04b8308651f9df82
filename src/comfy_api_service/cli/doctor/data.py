"""The data folder and the database in it. Nothing is changed; a probe file is removed at once."""

import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.db.migrate import HEAD, KNOWN, revision_of

GIGABYTE: Final = 1_000_000_000
LEAST_FREE: Final = GIGABYTE
LEAST_SHARE: Final = 0.05
ROOM: Final = (
    "Make room on the disk of the data folder, set DATA_DIR to a larger one, "
    "or let old jobs go sooner (JOB_RETENTION)."
)


class Usage(Protocol):
    """As of `shutil.disk_usage`, in bytes."""

    @property
    def total(self) -> int: ...
    @property
    def free(self) -> int: ...


def nearest(folder: Path) -> Path:
    """The folder itself, or what is there on the way to it."""
    for one in (folder, *folder.parents):
        if one.exists():
            return one
    return folder


def write_probe(folder: Path) -> None:
    """Write a file and bring it to the disk; raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
        probe.write(b"x" * 4096)
        probe.flush()


def data_folder(folder: Path, probe: Callable[[Path], None] = write_probe) -> Finding:
    folder = folder.absolute()
    place = nearest(folder)
    if not place.is_dir():
        return fault(
            "data folder",
            f"{folder} cannot be used: {place} is a file",
            "Move that file away, or set DATA_DIR to a folder.",
        )
    try:
        probe(place)
    except OSError as error:
        return fault(
            "data folder",
            f"{place} cannot be written to: {error.strerror or error}",
            _writable(place, error),
        )
    made = "" if place == folder else " (will be made at first start)"
    return ok("data folder", f"{folder} is writable{made}")


def _writable(place: Path, error: OSError) -> str:
    """What makes the folder writable, by what is wrong."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ROOM
    if error.errno == errno.EROFS:
        return "Mount its file system for writing, or set DATA_DIR to another folder."
    return (
        f'Give it to the user of the service (`chown -R "$USER" {place}`), or set DATA_DIR to another folder.'
    )


def disk(folder: Path, usage: Callable[[Path], Usage] = shutil.disk_usage) -> Finding:
    try:
        found = usage(nearest(folder.absolute()))
    except OSError as error:
        return fault(
            "disk", f"cannot be asked: {error.strerror or error}", "Check the disk of the data folder."
        )
    share = found.free / found.total if found.total else 0.0
    shown = f"{found.free / GIGABYTE:.1f} GB free, {share:.0%} of the disk"
    if found.free < LEAST_FREE:
        return fault("disk", f"nearly full: {shown}", ROOM)
    if share < LEAST_SHARE:
        return warning("disk", f"nearly full: {shown}", ROOM)
    return ok("disk", shown)


def database(path: Path) -> Finding:
    """Opens, is whole, and of a version that this one knows."""
    restore = f"Stop the service and restore {path.absolute()} from a backup, or move it away to begin anew."
    try:
        revision = revision_of(path)
        problem = None if not path.exists() else _problem(path)
    except (sqlite3.Error, OSError) as error:
        return fault("database", f"cannot be opened: {error}", restore)
    if problem is not None:
        return fault("database", f"damaged: {problem}", restore)
    if revision is None:
        return ok("database", f"none yet at {path.absolute()}; made at first start")
    if revision not in KNOWN:
        return fault(
            "database",
            f"written by a newer version (schema {revision}; this version knows up to {HEAD})",
            "Update this program to the version that wrote it, or set DATA_DIR to a folder of its own.",
        )
    if revision != HEAD:
        return ok("database", f"schema {revision}, brought to {HEAD} at the next start")
    return ok("database", f"schema {revision}, whole")


def _problem(path: Path) -> str | None:
    """What SQLite's own check says first; None if nothing. It checks structure, not every index."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        row = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if row is None or row[0] == "ok" else str(row[0])
