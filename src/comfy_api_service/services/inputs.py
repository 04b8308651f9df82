"""What callers name as input files, as uploads of theirs: upload ids, data URLs, results of jobs, https URLs."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from comfy_api_service.db import jobs, uploads
from comfy_api_service.db.base import Database
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code, Refused, Unavailable
from comfy_api_service.domain.ids import UPLOAD_ID
from comfy_api_service.domain.job import Artifact, State
from comfy_api_service.domain.upload import Upload
from comfy_api_service.outbound.addresses import AddressRefused, FetchError
from comfy_api_service.outbound.fetch import Fetcher
from comfy_api_service.services.throttle import Throttle, rate_limited
from comfy_api_service.services.uploads import Uploads
from comfy_api_service.storage.base import ObjectMissing, Storage, StorageError
from comfy_api_service.telemetry import Metrics

MOST: Final = 64
"""Files that one job may name."""
AT_ONCE: Final = 8
RESULT_BYTES: Final = 64 << 20
"""Largest result of a job that is taken as an input of another one."""
_JOB: Final = re.compile(r"(job_[0-9A-HJKMNP-TV-Z]{26})(?:/([0-9]{1,6}))?")
_DATA: Final = re.compile(r"data:(?:[a-z0-9.+-]+/[a-z0-9.+-]+)?(?:;[a-z0-9=.+-]+)*;base64,", re.IGNORECASE)
_LONGEST_HEAD: Final = 200
_SHOWN: Final = 64
_USER: Final = re.compile(r"(?<=//).*@", re.DOTALL)
_BEHIND: Final = re.compile(r"[?#]")
NO_UPLOAD: Final = "There is no such upload."
NO_RESULT: Final = "There is no such result."


class InputsRefused(Refused):
    """`faults`: what is wrong with each of the references, as they were given."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = faults
        shown = [{"input": _shown(reference), "message": message} for reference, message in faults.items()]
        super().__init__(Code.INVALID_INPUT, _told(shown), details={"errors": shown})


class Inputs:
    def __init__(
        self,
        db: Database,
        uploads: Uploads,
        storage: Storage,
        fetcher: Fetcher,
        throttle: Throttle,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._db = db
        self._uploads = uploads
        self._storage = storage
        self._fetcher = fetcher
        self._throttle = throttle
        self._clock = clock
        self._metrics = metrics

    async def resolve(self, account: Account, references: Collection[str]) -> Mapping[str, Upload]:
        """Each reference's upload: one of the account's, which is made of a data URL, a result or an https URL.

        Raises `InputsRefused` with every fault at once; what is somebody else's is absent. Raises `Unavailable`, and
        RATE_LIMIT_EXCEEDED before anything is fetched: what becomes an upload counts as one, whatever comes of it.
        """
        wanted = list(dict.fromkeys(references))
        if len(wanted) > MOST:
            raise Refused(
                Code.INVALID_INPUT, f"A job may name {MOST} files at most.", details={"limit": MOST}
            )
        found = await self._own(account, [one for one in wanted if UPLOAD_ID.fullmatch(one)])
        await self._charge(account, sum(not one.startswith("upl_") for one in wanted))
        gate = asyncio.Semaphore(AT_ONCE)
        faults: dict[str, str] = {}

        async def one(reference: str) -> None:
            async with gate:
                try:
                    async with aclosing(self._content(account, reference)) as chunks:
                        found[reference] = await self._uploads.add(
                            account,
                            chunks,
                            max_bytes=RESULT_BYTES if reference.startswith("job_") else None,
                        )
                except (_Unusable, FetchError) as fault:
                    faults[reference] = str(fault)
                except Refused as refusal:
                    faults[reference] = refusal.message

        absent = [reference for reference in wanted if reference not in found]
        ended = await asyncio.gather(*(one(reference) for reference in absent), return_exceptions=True)
        for fault in ended:
            if fault is not None:
                raise fault
        if faults:
            raise InputsRefused({reference: faults[reference] for reference in wanted if reference in faults})
        return found

    async def _charge(self, account: Account, files: int) -> None:
        taken = await self._throttle.uploads(account, files) if files else None
        if taken is not None and not taken.granted:
            self._metrics.limited.labels("uploads").inc()
            raise rate_limited(taken)

    async def _own(self, account: Account, upload_ids: list[str]) -> dict[str, Upload]:
        if not upload_ids:
            return {}
        known = await self._db.read(lambda tx: uploads.many(tx, account.id, upload_ids))
        now = self._clock.now()
        return {upload_id: upload for upload_id, upload in known.items() if upload.expires_at > now}

    def _content(self, account: Account, reference: str) -> AsyncGenerator[bytes]:
        if reference[:5].lower() == "data:":
            return _decoded(reference)
        if reference.startswith("job_"):
            return self._result(account, reference)
        if reference[:8].lower().startswith(("https://", "http://")):
            return self._fetched(reference)
        return _nothing(NO_UPLOAD if reference.startswith("upl_") else "This names no input.")

    async def _result(self, account: Account, reference: str) -> AsyncGenerator[bytes]:
        artifact = await self._artifact(account, reference)
        try:
            async with self._storage.open(artifact.key) as reader:
                async for chunk in reader.chunks():
                    yield chunk
        except ObjectMissing:
            raise _Unusable(NO_RESULT) from None
        except StorageError as fault:
            raise Unavailable("The storage cannot be reached now.") from fault

    async def _artifact(self, account: Account, reference: str) -> Artifact:
        named = _JOB.fullmatch(reference)
        job = None
        if named is not None:
            job_id = named[1]
            job = await self._db.read(lambda tx: jobs.get(tx, account.id, job_id))
        if named is None or job is None or job.purged_at is not None:
            raise _Unusable(NO_RESULT)
        if job.state is not State.SUCCEEDED:
            raise _Unusable("The job has no result.")
        index = int(named[2] or 0)
        artifact = next((one for one in job.artifacts if one.index == index), None)
        if artifact is None:
            raise _Unusable(NO_RESULT)
        if artifact.kind != "image" or artifact.bytes > RESULT_BYTES:
            raise _Unusable("This result is not a picture that can be an input.")
        return artifact

    async def _fetched(self, url: str) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._fetcher.chunks(url)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except AddressRefused:
            self._metrics.fetches.labels("refused").inc()
            raise
        except FetchError:
            self._metrics.fetches.labels("failed").inc()
            raise
        self._metrics.fetches.labels("ok").inc()


class _Unusable(Exception):
    """The reference gives no file; the text says why."""


async def _decoded(reference: str) -> AsyncGenerator[bytes]:
    head = _DATA.match(reference[:_LONGEST_HEAD])
    if head is None:
        raise _Unusable("A data URL must be base64 of a picture.")
    try:
        yield base64.b64decode(reference[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise _Unusable("A data URL must be base64 of a picture.") from None


async def _nothing(why: str) -> AsyncGenerator[bytes]:
    raise _Unusable(why)
    yield b""


def _shown(reference: str) -> str:
    """Enough to find it again: without what stands in a data URL, or behind a URL's path, or before its host."""
    if reference[:5].lower() == "data:":
        return reference.partition(",")[0][:_SHOWN]
    shown, *behind = _BEHIND.split(reference, maxsplit=1)
    if "@" in "".join(behind):  # what stands before may be the beginning of a password
        shown = "".join(shown.partition("//")[:2])
    return _USER.sub("", shown)[:_SHOWN]


def _told(shown: Sequence[Mapping[str, str]]) -> str:
    """The first fault. A message names no host: which URL it is, the details tell."""
    if not shown:
        return "An input cannot be used."
    first = shown[0]
    name = "An input" if "//" in first["input"] else first["input"]
    return f"{name}: {first['message']}"
