"""Objects in a bucket of an S3-compatible store: for any number of machines, with links that the store signs.

Every request is bounded in time. An object is there whole or not at all. Nothing that leaves here names host,
bucket or key.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import S3Store

from comfy_api_service.storage.base import (
    Listed,
    StorageError,
    StorageUnavailable,
    Stored,
    checked_key,
    checked_prefix,
)
from comfy_api_service.storage.links import disposition
from comfy_api_service.storage.presign import Presigner
from comfy_api_service.storage.s3_faults import Cause, RangeIgnored, StoreFailed, told_apart
from comfy_api_service.storage.s3_upload import Upload

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions
    from obstore.store import ClientConfig, S3Credential

CONNECT_SECONDS: Final = 3.5
"""To get a connection: time for its first packet to be lost twice."""
REQUEST_SECONDS: Final = 20.0
"""For one request, its body included: see `PART`. A store that hangs is noticed after so long."""
RETRY_SECONDS: Final = 10.0
"""A request that failed is not tried again later than this after its begin: who called has a longer breath, and
a place to keep a result meanwhile. (The library's own limit, 3 minutes, would hold up everybody.)
"""
RETRIES: Final = 2
OPEN_SECONDS: Final = 5.0
"""To learn whether an object is there: callers wait for it."""
STALLED_SECONDS: Final = 15.0
"""A download in which nothing came for so long is broken off."""
DOWNLOAD_SECONDS: Final = 3600.0
"""For a whole download, at the pace of who reads it."""
CHECK_SECONDS: Final = 5.0
CLOSING_SECONDS: Final = 2.0
"""What uploads that were given up may take to clean up when the process ends."""
PROBES: Final = "probes"
"""Where `check` puts its objects; nothing else is there."""
_LISTED_AT_ONCE: Final = 1000
_READ_AT_ONCE: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the store is and who may use it. `public_url` is the address by which callers reach it, for links."""

    endpoint: str
    name: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    public_url: str | None = None


class S3Storage:
    """A `Storage` in a bucket, which must exist.

    Uploads that died with their process leave parts that the library can neither list nor remove: give the bucket
    a rule that aborts incomplete multipart uploads after a day.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._store = _open(bucket, {"timeout": timedelta(seconds=REQUEST_SECONDS)})
        self._downloads = _open(
            bucket,
            {
                "timeout": timedelta(seconds=DOWNLOAD_SECONDS),
                "read_timeout": timedelta(seconds=STALLED_SECONDS),
            },
        )
        self._presigner = Presigner(
            base_url=bucket.public_url or bucket.endpoint,
            bucket=bucket.name,
            region=bucket.region,
            access_key=bucket.access_key,
            secret_key=bucket.secret_key,
        )
        self._given_up: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give uploads that were given up a moment to clean up behind them; no call may follow."""
        if self._given_up:
            _, hanging = await asyncio.wait(self._given_up, timeout=CLOSING_SECONDS)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    async def expect(self, prefix: str) -> None:
        """Nothing is to be done ahead: a bucket has no folders."""
        checked_key(prefix)

    async def forget(self, prefix: str) -> None:
        """Nothing was done ahead."""
        checked_key(prefix)

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        """As the Protocol says; a cancel that comes while the store is answering may come too late."""
        upload = Upload(self._store, checked_key(key), media_type)
        try:
            async for chunk in body:
                await upload.write(chunk)
            size, sha256 = await upload.finish()
        except BaseException:
            aborting = upload.give_up()
            if aborting is not None:
                self._given_up.add(aborting)
                aborting.add_done_callback(self._given_up.discard)
            raise
        return Stored(key, size, sha256)

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator["S3Reader"]:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                with told_apart("head"):
                    found = await obstore.head_async(self._store, checked_key(key))
        except TimeoutError:
            raise StoreFailed(Cause.SILENT, operation="head") from None
        yield S3Reader(self._downloads, key, found["size"], found["e_tag"])

    def link(self, key: str, *, expires_at: float, media_type: str, filename: str) -> str:
        """As the Protocol says; it ends after 7 days at the latest, whatever `expires_at` says."""
        return self._presigner.link(
            checked_key(key),
            now=time.time(),
            expires_at=expires_at,
            query={
                "response-content-disposition": disposition(media_type, filename),
                "response-content-type": media_type,
            },
        )

    async def delete(self, keys: Sequence[str]) -> None:
        checked = [checked_key(key) for key in keys]
        if checked:
            with told_apart("delete"):
                await obstore.delete_async(self._store, checked)

    async def list_prefix(self, prefix: str) -> AsyncIterator[Listed]:
        folder = checked_prefix(prefix).rpartition("/")[0]  # the library's prefixes are whole segments
        lines = obstore.list(self._store, folder or None, chunk_size=_LISTED_AT_ONCE)
        while True:
            with told_apart("list"):
                some = await anext(lines, None)
            if some is None:
                return
            for line in some:
                if line["path"].startswith(prefix):
                    yield Listed(line["path"], line["size"], line["last_modified"].timestamp())

    async def clear_unfinished(self, before: float) -> int:
        """Probes of processes that died; of multipart uploads see the class."""
        old = [line.key async for line in self.list_prefix(f"{PROBES}/") if line.modified_at < before]
        await self.delete(old)
        return len(old)

    async def check(self) -> None:
        """As the Protocol says, within 5 s; raises `StoreFailed`."""
        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                self._probe() as (key, content),
                self.open(key) as reader,
            ):
                found = b"".join([piece async for piece in reader.chunks()])
        except TimeoutError:
            raise StoreFailed(Cause.SILENT) from None
        if found != content:
            raise StorageUnavailable("The store gives back something else than was written.")

    @asynccontextmanager
    async def linked(self) -> AsyncGenerator[str]:
        """A link to a probe object, good for a minute; the object is removed at the end."""
        async with self._probe() as (key, _):
            yield self.link(
                key, expires_at=time.time() + 60, media_type="application/octet-stream", filename="probe"
            )

    @asynccontextmanager
    async def _probe(self) -> AsyncGenerator[tuple[str, bytes]]:
        key, content = f"{PROBES}/{secrets.token_hex(16)}", secrets.token_bytes(32)
        await self.put(key, _once(content), media_type="application/octet-stream")
        try:
            yield key, content
        except Exception:
            with contextlib.suppress(StorageError):
                await self.delete([key])
            raise
        await self.delete([key])


class S3Reader:
    """An `ObjectReader` over one object of the bucket; each reading is a request, streamed."""

    def __init__(self, store: S3Store, key: str, size: int, e_tag: str | None) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._e_tag = e_tag

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        start, end = max(start, 0), self._size if end is None else min(end, self._size)
        if start >= end:
            return
        skip, stream = await self._stream(start, end)
        left = end - start
        while left:
            with told_apart("get"):
                piece = await anext(stream, None)
            if piece is None:
                raise StorageUnavailable("The object is shorter than it was.")
            data = bytes(piece)
            if skip or len(data) > skip + left:
                data, skip = data[skip : skip + left], max(skip - len(data), 0)
            left -= len(data)
            if data:
                yield data

    async def _stream(self, start: int, end: int) -> "tuple[int, BytesStream]":
        """A stream, and how many of its bytes come before those that are wanted."""
        options: GetOptions = {} if self._e_tag is None else {"if_match": self._e_tag}
        part: GetOptions = {**options, "range": (start, end)}
        whole = (start, end) == (0, self._size)
        try:
            return 0, await self._get(options if whole else part)
        except RangeIgnored:
            return start, await self._get(options)

    async def _get(self, options: "GetOptions") -> "BytesStream":
        with told_apart("get"):
            found = await obstore.get_async(self._store, self._key, options=options)
        if found.meta["e_tag"] != self._e_tag:  # some servers ignore this condition too
            raise StorageUnavailable("The object was replaced.")
        return found.stream(min_chunk_size=_READ_AT_ONCE)


def _open(bucket: Bucket, limits: "ClientConfig") -> S3Store:
    """A client of its own for each set of limits. All that could else come from `AWS_*` variables is given."""
    credentials: S3Credential = {
        "access_key_id": bucket.access_key,
        "secret_access_key": bucket.secret_key,
        "token": None,
        "expires_at": None,
    }
    return S3Store(
        bucket.name,
        config={
            "endpoint": bucket.endpoint,
            "aws_endpoint_url_s3": bucket.endpoint,
            "region": bucket.region,
            "virtual_hosted_style_request": False,
            "s3_express": False,
            "skip_signature": False,
            "unsigned_payload": False,
        },
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            **limits,
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
        credential_provider=lambda: credentials,
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
