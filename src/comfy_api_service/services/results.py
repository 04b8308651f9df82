"""Results: the bytes of a finished job's artifacts, as they are stored, in another format, or small."""

from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor

import structlog

from comfy_api_service.db import jobs as job_rows
from comfy_api_service.db.base import Database
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code, Conflict, NotFound, Refused, Unavailable
from comfy_api_service.domain.job import Artifact, Job, OutputFormat, OutputOptions, State
from comfy_api_service.media.convert import convert, thumbnail
from comfy_api_service.media.errors import MediaError
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.views import Delivery, Link
from comfy_api_service.storage.base import ObjectMissing, Storage, StorageError
from comfy_api_service.storage.links import LinkSigner

log = structlog.get_logger()

CONVERTED_AT_MOST = 64 * 1024 * 1024
"""Largest file, in bytes, that is decoded for a conversion or a thumbnail."""
FORMATS: Mapping[str, OutputFormat] = {
    "image/png": OutputFormat.PNG,
    "image/jpeg": OutputFormat.JPEG,
    "image/webp": OutputFormat.WEBP,
}


class Results:
    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        storage: Storage,
        clock: Clock,
        executor: Executor,
        *,
        signer: LinkSigner | None,
    ) -> None:
        """`signer` is set where this service serves the signed links itself."""
        self._db = db
        self._jobs = jobs
        self._storage = storage
        self._clock = clock
        self._executor = executor
        self._signer = signer

    async def picture(
        self,
        account: Account,
        job_id: str,
        *,
        index: int,
        size: int | None = None,
        accept: tuple[str, ...] = (),
    ) -> Delivery:
        """The artifact with this index.

        `accept`: media types in order of preference, empty for any; `size`: a thumbnail that fits into
        size × size pixels. Raises `Conflict` while there is no result, GONE after deletion, NOT_ACCEPTABLE.
        """
        artifact = await self._artifact(account, job_id, index)
        if size is not None:
            return await self._made(artifact, f"{size}", None, size)
        wanted = _wanted(artifact, accept)
        if wanted is None:
            return self._stored(artifact)
        return await self._made(artifact, wanted.value, wanted, None)

    async def link(self, account: Account, job_id: str, *, index: int) -> Link:
        """A signed link to the artifact with this index."""
        artifact = await self._artifact(account, job_id, index)
        expires_at = self._clock.now() + account.limits.link_ttl
        name = artifact.key.rpartition("/")[2]
        url = self._storage.link(
            artifact.key, expires_at=expires_at, media_type=artifact.media_type, filename=name
        )
        return Link(url, expires_at)

    async def by_link(self, key: str, query: Mapping[str, str]) -> Delivery:
        """What a signed link of this service grants; FORBIDDEN for a bad one, GONE when the file is deleted."""
        if self._signer is None:
            raise NotFound("path")
        grant = self._signer.verify(key, query, self._clock.now())
        if not await self._db.read(lambda tx: job_rows.is_kept(tx, grant.key)):
            raise Refused(Code.GONE, "The result was deleted.")
        size = await self._size(grant.key)
        return Delivery(grant.media_type, size, grant.filename, f'"{grant.key}"', self._reader(grant.key))

    async def _artifact(self, account: Account, job_id: str, index: int) -> Artifact:
        job = (await self._jobs.get(account, job_id)).job
        _require_result(job)
        if index >= len(job.artifacts):
            raise NotFound("artifact")
        return job.artifacts[index]

    def _stored(self, artifact: Artifact) -> Delivery:
        name = artifact.key.rpartition("/")[2]
        return Delivery(
            artifact.media_type, artifact.bytes, name, f'"{artifact.sha256}"', self._reader(artifact.key)
        )

    async def _made(
        self, artifact: Artifact, tag: str, wanted: OutputFormat | None, size: int | None
    ) -> Delivery:
        if artifact.kind not in ("image", "animation"):
            raise _not_acceptable("Only pictures have thumbnails and other formats.", artifact)
        if artifact.bytes > CONVERTED_AT_MOST:
            raise _not_acceptable("The picture is too large to be converted.", artifact)
        data = b"".join([chunk async for chunk in self._reader(artifact.key)(0, None)])
        try:
            if size is not None:
                made, media_type = await thumbnail(data, size, executor=self._executor), "image/webp"
            else:
                options = OutputOptions(format=wanted or OutputFormat.ORIGINAL)
                made = await convert(data, options, executor=self._executor)
                media_type = f"image/{options.format}"
        except MediaError as fault:
            raise _not_acceptable("The picture cannot be converted.", artifact) from fault
        stem = artifact.key.rpartition("/")[2].rpartition(".")[0]
        name = f"{stem}.{media_type.removeprefix('image/')}"

        async def chunks(start: int, end: int | None) -> AsyncIterator[bytes]:
            yield made[start:end]

        return Delivery(media_type, len(made), name, f'"{artifact.sha256}-{tag}"', chunks)

    async def _size(self, key: str) -> int:
        try:
            async with self._storage.open(key) as reader:
                return reader.size
        except StorageError as fault:
            raise _away(fault) from fault

    def _reader(self, key: str) -> Callable[[int, int | None], AsyncIterator[bytes]]:
        async def chunks(start: int, end: int | None) -> AsyncIterator[bytes]:
            try:
                async with self._storage.open(key) as reader:
                    async for chunk in reader.chunks(start, end):
                        yield chunk
            except StorageError as fault:
                raise _away(fault) from fault

        return chunks


def _away(fault: StorageError) -> Unavailable:
    """A file that nobody deleted and that is not there: the store is at fault, and may be mended."""
    if isinstance(fault, ObjectMissing):
        log.error("artifact_missing")
        return Unavailable("The result cannot be found in the storage now.")
    log.warning("storage_failed", reason=str(fault))
    return Unavailable("The storage cannot be reached now.")


def _require_result(job: Job) -> None:
    if job.purged_at is not None:
        raise Refused(Code.GONE, "The result was deleted.")
    if job.state is State.FAILED and job.error is not None:
        raise Conflict(
            "The job failed.", status=job.status, error={"code": job.error.code, "message": job.error.message}
        )
    if job.state is not State.SUCCEEDED:
        raise Conflict("The job has no result.", status=job.status)


def _wanted(artifact: Artifact, accept: tuple[str, ...]) -> OutputFormat | None:
    """The format to convert to; None if the file can go as it is."""
    if not accept:
        return None
    main = artifact.media_type.partition("/")[0]
    for media_type in accept:
        if media_type in ("*/*", f"{main}/*", artifact.media_type):
            return None
        if media_type in FORMATS and artifact.kind == "image":
            return FORMATS[media_type]
    others = FORMATS if artifact.kind == "image" and artifact.bytes <= CONVERTED_AT_MOST else ()
    raise _not_acceptable(f"This result is {artifact.media_type}.", artifact, *others)


def _not_acceptable(message: str, artifact: Artifact, *others: str) -> Refused:
    """With the media types that can be had: the file's own first."""
    available = list(dict.fromkeys((artifact.media_type, *others)))
    return Refused(Code.NOT_ACCEPTABLE, message, details={"available": available})
