"""Make a backup beside whatever runs: first the database, at one moment, then the objects that it names."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from comfy_api_service.db import kept
from comfy_api_service.db.kept import Backed
from comfy_api_service.domain.backup import (
    DATABASES,
    KEY,
    MANIFEST,
    OBJECTS,
    RESULTS,
    BackupRefused,
    Kept,
    Manifest,
    Part,
    Told,
    mark_of,
)
from comfy_api_service.domain.clock import Clock
from comfy_api_service.storage.archive import ArchiveWriter
from comfy_api_service.storage.base import ObjectMissing, Storage, StorageError

MOST_NAMED: Final = 10_000
"""Absent objects that the manifest names; a store that lost more is lost."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up. `storage` is None if objects are only listed; `key_file` is absent if the key is a setting."""

    db: Backed
    storage: Storage | None
    key_file: Path
    secret: bytes | None
    settings: Mapping[str, str]
    version: str


async def make(source: Source, file: IO[bytes], work: Path, clock: Clock, told: Told) -> Manifest:
    """Write the archive to `file`; `work` is an empty folder for what cannot be streamed.

    Raises `BackupRefused`; what was written until then has no manifest.
    """
    revision = await source.db.revision()
    if revision is None:
        raise BackupRefused(
            "There is no database here: nothing to back up.",
            "Name the service's folder with --data-dir or DATA_DIR.",
        )
    copy, listed = work / DATABASES[source.db.engine], work / OBJECTS
    count, size = 0, 0
    async with source.db.copied(copy, told) as reader:
        census = await kept.census(reader, revision)
        with listed.open("x", encoding="utf-8") as lines:
            async for one in kept.objects(reader, revision):
                lines.write(one.line())
                count, size = count + 1, size + one.bytes
    archive = ArchiveWriter(file)
    parts: dict[str, Part] = {copy.name: await archive.add_file(copy.name, copy)}
    copy.unlink()
    if source.key_file.exists():
        parts[KEY] = archive.add_text(KEY, source.key_file.read_bytes())
    parts[OBJECTS] = await archive.add_file(OBJECTS, listed)
    held, absent = 0, list[str]()
    if source.storage is not None:
        held, absent = await _objects(source, source.storage, archive, listed, revision, size, told)
    manifest = Manifest(
        made_at=datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=source.version,
        schema=revision,
        engine=source.db.engine,
        results=source.storage is not None,
        objects=count,
        object_bytes=size,
        held=held,
        census=census,
        key_mark="" if source.secret is None else mark_of(source.secret),
        parts=parts,
        settings=source.settings,
        absent=tuple(absent),
    )
    archive.add_text(MANIFEST, manifest.text().encode())
    archive.end()
    return manifest


async def _objects(
    source: Source,
    storage: Storage,
    archive: ArchiveWriter,
    listed: Path,
    revision: str,
    whole: int,
    told: Told,
) -> tuple[int, list[str]]:
    """Objects into the archive: how many, and the keys of those that have a row and cannot be had as it says.

    One that is gone was perhaps deleted since the database was copied: then nothing is amiss.
    """
    absent: list[str] = []
    held = done = 0
    told("results", 0, whole)
    with listed.open(encoding="utf-8") as lines:
        for line in lines:
            one = Kept.read(line)
            there, sound = await _one(storage, archive, one)
            held += there
            if not sound and (there or await source.db.is_kept(one.key, revision)):
                absent.append(one.key)
            done += one.bytes
            told("results", done, whole)
            if len(absent) > MOST_NAMED:
                raise BackupRefused(
                    f"More than {MOST_NAMED} results are missing in the store.",
                    "Is the disk mounted? See `doctor`.",
                )
    return held, absent


async def _one(storage: Storage, archive: ArchiveWriter, one: Kept) -> tuple[bool, bool]:
    """Whether it is in the archive, and as its row says."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            reader = await stack.enter_async_context(storage.open(one.key))
        except ObjectMissing:
            return False, False
        except StorageError as fault:
            raise BackupRefused(
                f"The store does not give its objects: {fault}", "`comfy-api doctor` says more."
            ) from fault
        if reader.size != one.bytes:
            return False, False
        part = await archive.add(RESULTS + one.key, one.bytes, _from(reader.chunks()))
        return True, part.sha256 == one.sha256


async def _from(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except StorageError as fault:
        raise BackupRefused(f"The store broke off: {fault}", "Try again.") from fault
