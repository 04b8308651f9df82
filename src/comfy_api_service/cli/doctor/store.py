"""The S3-compatible store: used once as the service uses it, and what each way to fail asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import httpx2

from comfy_api_service.cli.causes import in_words
from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.storage.base import StorageError, StorageFull
from comfy_api_service.storage.s3 import PROBES, S3Storage
from comfy_api_service.storage.s3_faults import Cause, StoreFailed

if TYPE_CHECKING:
    from comfy_api_service.storage.s3 import Bucket

LINK_SECONDS: Final = 5.0
RIGHTS: Final = "s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListBucket and s3:AbortMultipartUpload"
_FOUND: Final[Mapping[Cause, tuple[str, str]]] = {
    Cause.REFUSED: (
        "nothing listens there: connection refused",
        "Start the store, or set S3_ENDPOINT to where it is.",
    ),
    Cause.UNKNOWN_HOST: (
        "its host name is not known",
        "Correct S3_ENDPOINT, or the name service of this machine.",
    ),
    Cause.TLS: (
        "no secure connection: its certificate is not trusted, or it speaks plain HTTP",
        "Set S3_ENDPOINT to http://… if it has no TLS, or SSL_CERT_FILE to the file of its private authority.",
    ),
    Cause.UNREACHABLE: (
        "the connection fails",
        "Check the network between, and that S3_ENDPOINT is the address of the store's S3 interface.",
    ),
    Cause.SILENT: (
        "no answer in time",
        "Check whether it hangs, and whether a firewall stands between.",
    ),
    Cause.NO_BUCKET: (
        "there is no such bucket",
        "Make the bucket, or set S3_BUCKET to one that is there.",
    ),
    Cause.UNKNOWN_KEY: (
        "it does not know the access key",
        "Set S3_ACCESS_KEY and S3_SECRET_KEY to a key of this store.",
    ),
    Cause.SIGNATURE: (
        "the signature does not fit",
        "Correct S3_SECRET_KEY; if it is right, S3_REGION, or a proxy that changes the Host header.",
    ),
    Cause.CLOCK: (
        "the clocks differ too much",
        "Set the clock of this machine or of the store (NTP): 15 minutes are the most that stores allow.",
    ),
    Cause.REGION: (
        "the bucket is in another region",
        "Set S3_REGION to the bucket's region, and S3_ENDPOINT to the address of that region.",
    ),
    Cause.BUSY: (
        "it is overloaded or starting",
        "Try again; if it stays, look at the store's own log.",
    ),
    Cause.OTHER: (
        "it answers, but not as a store does",
        "Check that S3_ENDPOINT is the address of the S3 interface, not of a console or a web page.",
    ),
}
_STEPS: Final = {
    "put": "write objects",
    "head": "read objects",
    "get": "read objects",
    "delete": "delete objects",
    "list": "list the bucket",
}


async def store(bucket: "Bucket") -> list[Finding]:
    """Write, read, list and delete a probe, then follow a link to another one."""
    storage = S3Storage(bucket)
    try:
        found = await _usable(storage, bucket)
        return [found, await _linked(storage, bucket)] if found.status == "ok" else [found]
    finally:
        await storage.close()


async def _usable(storage: S3Storage, bucket: "Bucket") -> Finding:
    subject = f"store {bucket.endpoint}"
    try:
        await storage.check()
        async for _ in storage.list_prefix(f"{PROBES}/"):
            break
    except StorageFull:
        return fault(subject, "no room left", "Make room in the store, or raise the bucket's quota.")
    except StoreFailed as failed:
        if failed.cause is Cause.FORBIDDEN:
            step = _STEPS.get(failed.operation, "use it")
            message = f"the access key may not {step} in bucket {bucket.name}"
            return fault(subject, message, f"Give it {RIGHTS} on the bucket and its objects.")
        message, remedy = _FOUND[failed.cause]
        told = f" ({failed.code})" if failed.code else ""
        return fault(subject, f"{message}{told}", remedy)
    except StorageError as error:
        return fault(subject, str(error), "Look at the store's own log.")
    return ok(subject, f"bucket {bucket.name} can be written, read, listed and deleted from")


async def _linked(storage: S3Storage, bucket: "Bucket") -> Finding:
    """A link, opened as a caller would."""
    address = bucket.public_url or bucket.endpoint
    subject = f"links to {address}"
    remedy = (
        "Set S3_PUBLIC_URL to an address of the store that callers reach; a proxy there must pass path, query "
        "and Host header on unchanged."
    )
    async with storage.linked() as link, httpx2.AsyncClient(timeout=LINK_SECONDS, trust_env=False) as http:
        try:
            answer = await http.get(link)
        except httpx2.TransportError as error:
            return warning(subject, f"cannot be opened from this machine: {in_words(error)}", remedy)
    if answer.status_code != 200:
        return fault(subject, f"are refused (HTTP {answer.status_code})", remedy)
    return ok(subject, "open")
