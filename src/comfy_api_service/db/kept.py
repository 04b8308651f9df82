"""What a backup asks of a database: which stored objects have a row, and how much there is of everything."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from comfy_api_service.db.base import Reader
from comfy_api_service.domain.backup import Census, Engine, Kept, Told

PAGE: Final = 1000
_WITH_UPLOADS: Final = "0006"
"""The revision since which there are uploads and workflows: an older database is backed up before it is migrated."""


class Backed(Protocol):
    """A database as backups see it: beside whatever runs on it, or, to be restored, with nothing running."""

    @property
    def engine(self) -> Engine: ...

    async def revision(self) -> str | None:
        """The schema's; None: there is no database, or an empty one."""
        ...

    def copied(self, to: Path, told: Told) -> AbstractAsyncContextManager[Reader]:
        """Write a copy of one moment; what is read then is of the same moment. Raises `BackupRefused`."""
        ...

    async def is_kept(self, key: str, revision: str) -> bool:
        """Whether an object has a row now."""
        ...

    async def is_empty(self) -> bool:
        """Whether a copy can be restored here without anything else in its way. Raises `BackupRefused` if
        somebody works on it.
        """
        ...

    async def set_aside(self, stamp: str) -> str:
        """Move away what is there; where to, in words."""
        ...

    async def restore(self, copy: Path, told: Told) -> None:
        """Put a copy in the empty place, whole or not at all. `copy` may be moved. Raises `BackupRefused`."""
        ...


async def objects(tx: Reader, revision: str) -> AsyncIterator[Kept]:
    """Results that were not deleted, then uploads; page by page."""
    job, idx = "", -1
    while True:
        rows = await tx.all(
            """SELECT a.job_id, a.idx, a.key, a.bytes, a.sha256, a.media_type
               FROM artifacts a JOIN jobs j ON j.id = a.job_id
               WHERE (a.job_id, a.idx) > (:job, :idx) AND j.purged_at IS NULL
               ORDER BY a.job_id, a.idx LIMIT :most""",
            {"job": job, "idx": idx, "most": PAGE},
        )
        for row in rows:
            yield Kept(row["key"], row["bytes"], row["sha256"], row["media_type"])
        if len(rows) < PAGE:
            break
        job, idx = rows[-1]["job_id"], rows[-1]["idx"]
    upload = ""
    while revision >= _WITH_UPLOADS:
        rows = await tx.all(
            """SELECT id, key, bytes, sha256, media_type FROM uploads WHERE id > :after
               ORDER BY id LIMIT :most""",
            {"after": upload, "most": PAGE},
        )
        for row in rows:
            yield Kept(row["key"], row["bytes"], row["sha256"], row["media_type"])
        if len(rows) < PAGE:
            break
        upload = rows[-1]["id"]


async def is_kept(tx: Reader, key: str, revision: str) -> bool:
    """Whether an object still has a row."""
    row = await tx.one(
        """SELECT 1 AS kept FROM artifacts a JOIN jobs j ON j.id = a.job_id
           WHERE a.job_id = :job AND a.key = :key AND j.purged_at IS NULL""",
        {"job": key.split("/")[1] if "/" in key else "", "key": key},
    )
    if row is None and revision >= _WITH_UPLOADS:
        row = await tx.one("SELECT 1 AS kept FROM uploads WHERE key = :key", {"key": key})
    return row is not None


async def census(tx: Reader, revision: str) -> Census:
    workflows = "(SELECT count(*) FROM workflows)" if revision >= _WITH_UPLOADS else "0"
    row = await tx.one(
        f"""SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM jobs) AS jobs,
             (SELECT count(*) FROM jobs WHERE state IN ('ready', 'dispatched', 'executing', 'storing')) AS open,
             {workflows} AS workflows"""
    )
    return (
        Census(0, 0, 0, 0)
        if row is None
        else Census(row["accounts"], row["jobs"], row["open"], row["workflows"])
    )
