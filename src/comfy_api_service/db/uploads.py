"""Uploads: the files of callers, by their owner; and, for workers, those that jobs and time leave over.

A row is locked before its deletion is decided on, and before a job that needs it is written: so either the job is
seen by who deletes, or the deletion by who submits.
"""

from collections.abc import Sequence

from comfy_api_service.db.base import Reader, Row, Tx, dumps
from comfy_api_service.domain.upload import Upload


async def get(tx: Reader, account_id: str, upload_id: str) -> Upload | None:
    row = await tx.one(
        "SELECT * FROM uploads WHERE id = :id AND account_id = :account",
        {"id": upload_id, "account": account_id},
    )
    return None if row is None else _upload(row)


async def many(tx: Reader, account_id: str, upload_ids: Sequence[str]) -> dict[str, Upload]:
    """Those of the uploads that exist and are the account's."""
    rows = await tx.all(
        f"SELECT * FROM uploads WHERE {tx.dialect.among('id', 'ids')} AND account_id = :account",
        {"ids": dumps(sorted(upload_ids)), "account": account_id},
    )
    return {row["id"]: _upload(row) for row in rows}


async def renew(tx: Tx, account_id: str, sha256: str, expires_at: float) -> Upload | None:
    """The account's upload with this content, kept at least until then; None if it has none."""
    row = await tx.one(
        """UPDATE uploads SET expires_at = CASE WHEN expires_at < :until THEN :until ELSE expires_at END
           WHERE account_id = :account AND sha256 = :sha256 RETURNING *""",
        {"account": account_id, "sha256": sha256, "until": expires_at},
    )
    return None if row is None else _upload(row)


async def add(tx: Tx, upload: Upload) -> Upload:
    """The upload itself, or the one with the same content that the account has meanwhile, renewed."""
    row = await tx.one(
        """INSERT INTO uploads
             (id, account_id, sha256, media_type, width, height, bytes, key, created_at, expires_at)
           VALUES (:id, :account, :sha256, :media_type, :width, :height, :bytes, :key, :created, :until)
           ON CONFLICT (account_id, sha256) DO UPDATE SET expires_at =
             CASE WHEN uploads.expires_at < excluded.expires_at THEN excluded.expires_at ELSE uploads.expires_at END
           RETURNING *""",
        {
            "id": upload.id,
            "account": upload.account_id,
            "sha256": upload.sha256,
            "media_type": upload.media_type,
            "width": upload.width,
            "height": upload.height,
            "bytes": upload.bytes,
            "key": upload.key,
            "created": upload.created_at,
            "until": upload.expires_at,
        },
    )
    if row is None:
        raise LookupError("an upload that was just written")
    return _upload(row)


async def take_out(tx: Tx, account_id: str, upload_id: str) -> Upload | bool | None:
    """Delete the row: the upload whose file is to be deleted now. False: an open job needs it; None: there is none."""
    row = await tx.one(
        "SELECT * FROM uploads WHERE id = :id AND account_id = :account" + tx.dialect.locking("uploads"),
        {"id": upload_id, "account": account_id},
    )
    if row is None:
        return None
    if await _needed(tx, [upload_id]):
        return False
    await _forget(tx, [upload_id])
    return _upload(row)


async def take_out_expired(tx: Tx, now: float, *, limit: int) -> list[str]:
    """Delete the rows of expired uploads that no open job needs; the keys of their files, to be deleted now."""
    rows = await tx.all(
        """SELECT id, key FROM uploads u WHERE expires_at <= :now AND NOT EXISTS (
             SELECT 1 FROM job_uploads p JOIN jobs j ON j.id = p.job_id
             WHERE p.upload_id = u.id AND j.finished_at IS NULL)
           ORDER BY id LIMIT :limit"""
        + tx.dialect.locking("u"),
        {"now": now, "limit": limit},
    )
    if not rows:
        return []
    needed = await _needed(tx, [row["id"] for row in rows])  # by a job that came while the rows were locked
    gone = {row["id"]: row["key"] for row in rows if row["id"] not in needed}
    await _forget(tx, list(gone))
    return list(gone.values())


async def of_jobs(tx: Reader, upload_ids: Sequence[str]) -> dict[str, Upload]:
    """For workers: the uploads that jobs of theirs name."""
    rows = await tx.all(
        f"SELECT * FROM uploads WHERE {tx.dialect.among('id', 'ids')}", {"ids": dumps(sorted(upload_ids))}
    )
    return {row["id"]: _upload(row) for row in rows}


async def kept_keys(tx: Reader, upload_ids: Sequence[str]) -> set[str]:
    """Keys of the files of those uploads that have a row."""
    rows = await tx.all(
        f"SELECT key FROM uploads WHERE {tx.dialect.among('id', 'ids')}", {"ids": dumps(sorted(upload_ids))}
    )
    return {row["key"] for row in rows}


async def _needed(tx: Reader, upload_ids: Sequence[str]) -> set[str]:
    """Those of the uploads that open jobs need."""
    rows = await tx.all(
        f"""SELECT p.upload_id FROM job_uploads p JOIN jobs j ON j.id = p.job_id
            WHERE {tx.dialect.among("p.upload_id", "ids")} AND j.finished_at IS NULL""",
        {"ids": dumps(sorted(upload_ids))},
    )
    return {row["upload_id"] for row in rows}


async def _forget(tx: Tx, upload_ids: Sequence[str]) -> None:
    ids = {"ids": dumps(sorted(upload_ids))}
    await tx.run(f"DELETE FROM job_uploads WHERE {tx.dialect.among('upload_id', 'ids')}", ids)
    await tx.run(f"DELETE FROM uploads WHERE {tx.dialect.among('id', 'ids')}", ids)


def _upload(row: Row) -> Upload:
    return Upload(
        id=row["id"],
        account_id=row["account_id"],
        sha256=row["sha256"],
        media_type=row["media_type"],
        width=row["width"],
        height=row["height"],
        bytes=row["bytes"],
        key=row["key"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
