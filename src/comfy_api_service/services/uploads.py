"""Uploads: pictures that callers bring as inputs of jobs, checked, cleaned, kept for a while."""

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from comfy_api_service.db import uploads
from comfy_api_service.db.base import Database
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code, Conflict, NotFound, Refused, Unavailable
from comfy_api_service.domain.ids import UPLOAD_ID, new_upload_id
from comfy_api_service.domain.upload import MAX_PIXELS, Upload
from comfy_api_service.media.errors import MediaError, NotTaken
from comfy_api_service.media.receive import Received, receive
from comfy_api_service.storage.base import Storage, StorageError
from comfy_api_service.telemetry import Metrics

log = structlog.get_logger()

PIECE: Final = 1 << 20
"""Bytes that are gathered before a thread is asked to write or read them."""


class Uploads:
    def __init__(
        self,
        db: Database,
        storage: Storage,
        clock: Clock,
        executor: Executor,
        metrics: Metrics,
        *,
        folder: Path,
        max_bytes: int,
        ttl: float,
    ) -> None:
        """`executor` decodes: as many pictures stand in memory at once as it has threads. `folder`: for what is
        on its way; nothing stays there. `ttl` in seconds.
        """
        self._db = db
        self._storage = storage
        self._clock = clock
        self._executor = executor
        self._metrics = metrics
        self._folder = folder
        self._max_bytes = max_bytes
        self._ttl = ttl

    async def add(
        self, account: Account, chunks: AsyncIterable[bytes], *, max_bytes: int | None = None
    ) -> Upload:
        """The picture in the store; durable when it returns. The same content again is the same upload, renewed.

        Raises `Refused`: PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE for what is not PNG, JPEG or WebP, INVALID_INPUT
        for what is no sound picture of one frame and 64 megapixels at most. Raises `Unavailable`, and what `chunks`
        raises. `max_bytes`: another limit than that of uploads.
        """
        try:
            upload = await self._add(account, chunks, max_bytes or self._max_bytes)
        except Refused:
            self._metrics.inputs.labels("refused").inc()
            raise
        except Unavailable:
            self._metrics.inputs.labels("failed").inc()
            raise
        except OSError as fault:  # also of closing a file whose last piece found no room
            self._metrics.inputs.labels("failed").inc()
            log.warning("disk_failed", reason=errno.errorcode.get(fault.errno or 0, type(fault).__name__))
            raise Unavailable("The service's disk cannot take the file now.") from fault
        self._metrics.inputs.labels("ok").inc()
        self._metrics.input_bytes.inc(upload.bytes)
        return upload

    async def get(self, account: Account, upload_id: str) -> Upload:
        found = None
        if UPLOAD_ID.fullmatch(upload_id):
            found = await self._db.read(lambda tx: uploads.get(tx, account.id, upload_id))
        if found is None or found.expires_at <= self._clock.now():
            raise NotFound("upload")
        return found

    async def delete(self, account: Account, upload_id: str) -> None:
        """Raises `Conflict` while a job that has not ended needs it."""
        taken = await self._db.write(lambda tx: uploads.take_out(tx, account.id, upload_id))
        if taken is None or taken is True:
            raise NotFound("upload")
        if taken is False:
            raise Conflict("A job that has not ended needs this upload.")
        await self._discard(taken.key)

    async def _add(self, account: Account, chunks: AsyncIterable[bytes], most: int) -> Upload:
        with (
            tempfile.TemporaryFile(dir=self._folder) as raw,
            tempfile.TemporaryFile(dir=self._folder) as kept,
        ):
            await _spool(chunks, raw, most)
            received = await self._examined(raw, kept)
            until = self._clock.now() + self._ttl
            known = await self._db.write(lambda tx: uploads.renew(tx, account.id, received.sha256, until))
            if known is not None:
                return known
            upload = self._described(account, received)
            await self._put(upload, kept)
        added = await self._db.write(lambda tx: uploads.add(tx, upload))
        if added.id != upload.id:  # the same came twice at once
            await self._discard(upload.key)
        return added

    async def _examined(self, raw: BinaryIO, kept: BinaryIO) -> Received:
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: receive(raw, kept, max_pixels=MAX_PIXELS)
        )
        try:
            return await asyncio.shield(work)
        except NotTaken as fault:
            raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, str(fault)) from fault
        except MediaError as fault:
            raise Refused(Code.INVALID_INPUT, str(fault)) from fault
        finally:
            if not work.done():  # who waited has left; the files are closed only after the thread
                await asyncio.wait((work,))

    def _described(self, account: Account, received: Received) -> Upload:
        upload_id, now = new_upload_id(), self._clock.now()
        return Upload(
            id=upload_id,
            account_id=account.id,
            sha256=received.sha256,
            media_type=received.kind.media_type,
            width=received.width,
            height=received.height,
            bytes=received.bytes,
            key=f"uploads/{account.id}/{upload_id}",
            created_at=now,
            expires_at=now + self._ttl,
        )

    async def _put(self, upload: Upload, file: BinaryIO) -> None:
        try:
            stored = await self._storage.put(upload.key, _read(file), media_type=upload.media_type)
        except StorageError as fault:
            log.warning("storage_failed", reason=str(fault))
            raise Unavailable("The storage cannot take the file now.") from fault
        if stored.sha256 != upload.sha256:
            raise Unavailable("The storage did not take the file whole.")

    async def _discard(self, key: str) -> None:
        """What fails here is swept later, as nothing names it."""
        try:
            await self._storage.delete([key])
        except StorageError as fault:
            log.warning("storage_failed", reason=str(fault))


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _spool(chunks: AsyncIterable[bytes], file: BinaryIO, most: int) -> None:
    pieces: list[bytes] = []
    total = waiting = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > most:
            raise Refused(
                Code.PAYLOAD_TOO_LARGE,
                f"The file is larger than {most} bytes.",
                details={"limit": most},
            )
        pieces.append(chunk)
        waiting += len(chunk)
        if waiting >= PIECE:
            await asyncio.to_thread(file.writelines, pieces)
            pieces, waiting = [], 0
    await asyncio.to_thread(file.writelines, pieces)
