"""Put a backup in place of nothing: all of the archive is verified before anything of it counts.

The database comes last: until it is there the place is no service's, and the same command may be given again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfy_api_service.db.kept import Backed
from comfy_api_service.db.migrate import KNOWN, SchemaTooNew
from comfy_api_service.domain.backup import (
    KEY,
    MANIFEST,
    OBJECTS,
    RESULTS,
    BackupRefused,
    Kept,
    Manifest,
    Part,
    Told,
    damaged,
)
from comfy_api_service.storage.archive import ArchiveReader, hashed, weighed
from comfy_api_service.storage.base import Storage, StorageError, is_key
from comfy_api_service.storage.tree import sync_folder

UNFINISHED: Final = ".restore-unfinished"
"""In the folder while results are put there: who finds it, and no database, goes on where a restore broke off."""
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where it goes. `artifacts`: the folder of local files; None if objects go to a bucket."""

    db: Backed
    storage: Storage
    artifacts: Path | None
    key_file: Path


def read(archive: ArchiveReader) -> Manifest:
    """The manifest, if this version can restore what it describes. Raises `BackupRefused`, `SchemaTooNew`."""
    manifest = Manifest.read(archive.manifest())
    if manifest.schema not in KNOWN:
        raise SchemaTooNew(manifest.schema)
    return manifest


async def verify(archive: ArchiveReader, manifest: Manifest, work: Path, told: Told, *, stage: bool) -> None:
    """Compare every byte with what the manifest and the list of objects say. `work` is an empty folder; with `stage`
    the database and the key are there afterwards. Raises `BackupRefused`.
    """
    seen: dict[str, Part] = {}
    done, whole = 0, sum(part.bytes for part in manifest.parts.values()) + manifest.object_bytes
    told("verifying", 0, whole)
    held = 0
    expected: Iterator[Kept] = iter(())
    for name, size in archive.parts():
        if name.startswith(RESULTS):
            held += 1
            one = _listed(expected, name.removeprefix(RESULTS), size)
            if (await weighed(archive.pieces())).sha256 != one.sha256 and one.key not in manifest.absent:
                raise damaged(f"{one.key} is not what it was")
        elif name in manifest.parts and name not in seen:
            part = manifest.parts[name]
            to = work / name if stage or name == OBJECTS else None
            seen[name] = await (weighed(archive.pieces()) if to is None else hashed(archive.pieces(), to))
            if seen[name] != part:
                raise damaged(f"{name} is not what it was")
            if name == OBJECTS:
                expected = _lines(work / OBJECTS)
        elif name != MANIFEST:
            raise damaged("it holds what no backup has")
        done += size
        told("verifying", done, whole)
    if seen.keys() != manifest.parts.keys() or held != manifest.held:
        raise damaged("parts of it are missing")
    told("verifying", whole, whole)


async def restore(
    archive: ArchiveReader,
    manifest: Manifest,
    target: Target,
    work: Path,
    stamp: str,
    *,
    force: bool,
    told: Told,
) -> str | None:
    """Where what was here before went, in words; None if nothing was. `work` is an empty folder, on the disk of an
    SQLite database. Raises `BackupRefused`.
    """
    _check_kind(manifest, target)
    unfinished = target.key_file.parent / UNFINISHED
    files = [path for path in _files(manifest, target) if _exists(path) and not _exists(unfinished)]
    occupied = bool(files) or not await target.db.is_empty()
    if occupied and not force:
        raise BackupRefused(
            "There is a service's data here already.",
            "Restore into an empty place, or give --force: what is here is then moved aside, not deleted.",
        )
    await verify(archive, manifest, work, told, stage=True)
    aside = await _set_aside(target, files, stamp) if occupied else None
    _mark(unfinished)
    await _objects(archive, manifest, target.storage, work, told)
    if KEY in manifest.parts:
        (work / KEY).rename(target.key_file)
        sync_folder(target.key_file.parent)
    await target.db.restore(work / manifest.database, told)
    sync_folder(work.parent)
    _unmark(unfinished)
    return aside


def _exists(path: Path) -> bool:
    return path.exists()


def _mark(unfinished: Path) -> None:
    unfinished.touch()
    sync_folder(unfinished.parent)


def _unmark(unfinished: Path) -> None:
    unfinished.unlink()
    sync_folder(unfinished.parent)


def _check_kind(manifest: Manifest, target: Target) -> None:
    here = target.db.engine
    if manifest.engine != here:
        raise BackupRefused(
            f"The archive holds a database of {_NAMES[manifest.engine]}; here it is {_NAMES[here]}.",
            "Set DATABASE_URL to an empty PostgreSQL database."
            if manifest.engine == "postgresql"
            else "Restore it without DATABASE_URL: a backup does not change the kind of database.",
        )


def _files(manifest: Manifest, target: Target) -> list[Path]:
    """What of the folder the archive has a successor for."""
    found = [target.key_file] if KEY in manifest.parts else []
    return found if target.artifacts is None or not manifest.results else [*found, target.artifacts]


async def _set_aside(target: Target, files: list[Path], stamp: str) -> str:
    """The database first: without it nothing else counts."""
    where = [] if await target.db.is_empty() else [await target.db.set_aside(stamp)]
    folder = target.key_file.parent / f"replaced-{stamp}"
    for path in files:
        folder.mkdir(mode=0o700, exist_ok=True)
        path.rename(folder / path.name)
        where.append(str(folder))
    return " and ".join(dict.fromkeys(where))


async def _objects(
    archive: ArchiveReader, manifest: Manifest, storage: Storage, work: Path, told: Told
) -> None:
    """Those that are sound into the store, each durable before the next."""
    expected = _lines(work / OBJECTS)
    done = 0
    for name, size in archive.parts():
        if not name.startswith(RESULTS):
            continue
        one = _listed(expected, name.removeprefix(RESULTS), size)
        if one.key not in manifest.absent:
            try:
                stored = await storage.put(one.key, archive.pieces(), media_type=one.media_type)
            except StorageError as fault:
                raise BackupRefused(
                    f"The store does not take the results: {fault}", "See `comfy-api doctor`."
                ) from fault
            if stored.sha256 != one.sha256:
                await storage.delete([one.key])
                raise damaged(f"{one.key} changed while it was read")
        done += size
        told("results", done, manifest.object_bytes)


def _lines(listed: Path) -> Iterator[Kept]:
    with listed.open(encoding="utf-8") as lines:
        for line in lines:
            yield Kept.read(line)


def _listed(expected: Iterator[Kept], key: str, size: int) -> Kept:
    """The object in the list: it has the archive's order, but for what was absent."""
    if is_key(key):
        for one in expected:
            if one.key == key and one.bytes == size:
                return one
    raise damaged("it holds a result that its list does not name")
