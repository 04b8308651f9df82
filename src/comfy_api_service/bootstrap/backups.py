"""Backups from settings: which database, which store, which key."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from comfy_api_service import __version__
from comfy_api_service.bootstrap import folder
from comfy_api_service.bootstrap.parts import migrate, open_storage
from comfy_api_service.db.kept import Backed
from comfy_api_service.domain.backup import BackupRefused, Manifest, Told, mark_of
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.services import backup, restore
from comfy_api_service.settings import Settings
from comfy_api_service.storage.archive import ArchiveReader
from comfy_api_service.storage.base import Storage
from comfy_api_service.storage.links import LinkSigner

WORK: Final = ".comfy-api-backup-"
"""Folders for what is under way begin so."""
LEFT_SECONDS: Final = 86_400
"""What a killed command left is removed by the next one when it is so old."""


async def back_up(
    settings: Settings,
    file: IO[bytes],
    told: Told,
    *,
    shown: dict[str, str],
    with_bucket: bool,
    work_in: Path,
) -> Manifest:
    """`shown`: the settings as they may be told. `with_bucket`: objects of an S3 store too. `work_in`: a folder that
    the service's user may write to. Raises `BackupRefused`, and as opening the database does.
    """
    async with _storage(settings) as storage:
        local = settings.s3_endpoint is None
        source = backup.Source(
            db=_backed(settings),
            storage=storage if local or with_bucket else None,
            key_file=settings.data_dir / folder.KEY,
            secret=_secret(settings),
            settings=shown,
            version=__version__,
        )
        with work_folder(work_in) as work:
            return await backup.make(source, file, work, SystemClock(), told)


def inspect(archive: Path) -> Manifest:
    """Raises `BackupRefused`, `SchemaTooNew`."""
    with contextlib.closing(ArchiveReader(archive)) as opened:
        return restore.read(opened)


async def verify(archive: Path, told: Told) -> Manifest:
    """Raises `BackupRefused`, `SchemaTooNew`."""
    with contextlib.closing(ArchiveReader(archive)) as opened, tempfile.TemporaryDirectory() as work:
        manifest = restore.read(opened)
        await restore.verify(opened, manifest, Path(work), told, stage=False)
        return manifest


async def bring_back(
    settings: Settings, archive: Path, told: Told, *, force: bool
) -> tuple[Manifest, str | None, bool]:
    """The manifest, where what was here went, and whether links and tokens of then are good here.

    Raises `BackupRefused`, `SchemaTooNew`, `DataFolderInUse`, and as opening the database does.
    """
    folder.make(settings.data_dir)
    beside = settings.data_dir if settings.postgres_url is not None else settings.database_path.parent
    with (
        contextlib.closing(ArchiveReader(archive)) as opened,
        folder.only_worker(settings.data_dir / folder.LOCK),
        work_folder(beside) as work,
    ):
        manifest = restore.read(opened)
        async with _storage(settings) as storage:
            target = restore.Target(
                db=_backed(settings),
                storage=storage,
                artifacts=settings.data_dir / folder.ARTIFACTS if settings.s3_endpoint is None else None,
                key_file=settings.data_dir / folder.KEY,
            )
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
            aside = await restore.restore(opened, manifest, target, work, stamp, force=force, told=told)
        await migrate(settings)
    secret = _secret(settings)
    return (
        manifest,
        aside,
        not manifest.key_mark or (secret is not None and mark_of(secret) == manifest.key_mark),
    )


@contextmanager
def work_folder(beside: Path) -> Iterator[Path]:
    """An empty folder, gone at the end. Raises `BackupRefused`."""
    for left in beside.glob(f"{WORK}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(left)
    try:
        work = Path(tempfile.mkdtemp(prefix=WORK, dir=beside))
    except OSError as fault:
        raise BackupRefused(
            f"Nothing can be written in {beside}: {fault.strerror}.", "Make it writable for this user."
        ) from fault
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _backed(settings: Settings) -> Backed:
    if settings.postgres_url is not None:
        from comfy_api_service.db.postgres_backup import PostgresBacked  # noqa: PLC0415 - spares others its loading

        return PostgresBacked(settings.postgres_url)
    from comfy_api_service.db.sqlite_backup import SqliteBacked  # noqa: PLC0415

    return SqliteBacked(settings.database_path)


@asynccontextmanager
async def _storage(settings: Settings) -> AsyncIterator[Storage]:
    async with contextlib.AsyncExitStack() as stack:
        yield open_storage(settings, LinkSigner(b"links are not made here", ""), stack)


def _secret(settings: Settings) -> bytes | None:
    """The key that signs; None if none was made yet."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    with contextlib.suppress(FileNotFoundError):
        return (settings.data_dir / folder.KEY).read_bytes()
    return None
