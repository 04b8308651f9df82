"""What a fault of an S3-compatible store means, read from what the library says of it.

The library's own texts name hosts, buckets and keys: they go no further than this module.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from obstore.exceptions import BaseError

from comfy_api_service.storage.base import ObjectMissing, StorageError, StorageFull, StorageUnavailable


class Cause(StrEnum):
    """Why a store did not do what it was asked, as far as it can be told apart."""

    REFUSED = "refused"
    """Nothing listens there."""
    UNKNOWN_HOST = "unknown host"
    TLS = "tls"
    """No secure connection: a certificate that is not trusted, or a server that speaks plain HTTP."""
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    """No answer in time."""
    NO_BUCKET = "no bucket"
    UNKNOWN_KEY = "unknown key"
    """The store does not know the access key."""
    SIGNATURE = "signature"
    """It does not fit: most often another secret."""
    FORBIDDEN = "forbidden"
    """The credentials are good and not allowed to do this."""
    CLOCK = "clock"
    REGION = "region"
    FULL = "full"
    BUSY = "busy"
    OTHER = "other"


class StoreFailed(StorageUnavailable):
    """The store cannot be reached or answered with an error; `cause` says which, as far as is known."""

    def __init__(self, cause: Cause, code: str = "", operation: str = "") -> None:
        """`code`: the store's own word for it, or the status of its answer."""
        super().__init__(f"The store did not do it ({code or cause.value}).")
        self.cause = cause
        self.code = code
        self.operation = operation
        """put, head, get, delete or list."""


class RangeIgnored(StorageUnavailable):
    """A part of an object was asked for, and the answer was not marked as one, as if it were the whole."""


_CODES: Final = {
    "NoSuchBucket": Cause.NO_BUCKET,
    "InvalidBucketName": Cause.NO_BUCKET,
    "InvalidAccessKeyId": Cause.UNKNOWN_KEY,
    "SignatureDoesNotMatch": Cause.SIGNATURE,
    "AccessDenied": Cause.FORBIDDEN,
    "AllAccessDisabled": Cause.FORBIDDEN,
    "RequestTimeTooSkewed": Cause.CLOCK,
    "RequestExpired": Cause.CLOCK,
    "AuthorizationHeaderMalformed": Cause.REGION,
    "PermanentRedirect": Cause.REGION,
    "IllegalLocationConstraintException": Cause.REGION,
    "XMinioStorageFull": Cause.FULL,
    "QuotaExceeded": Cause.FULL,
    "StorageFull": Cause.FULL,
    "InsufficientStorage": Cause.FULL,
    "SlowDown": Cause.BUSY,
    "ServiceUnavailable": Cause.BUSY,
    "RequestTimeout": Cause.SILENT,
}
_STATUSES: Final = {
    "301": Cause.REGION,
    "307": Cause.REGION,
    "401": Cause.FORBIDDEN,
    "403": Cause.FORBIDDEN,
    "429": Cause.BUSY,
    "503": Cause.BUSY,
    "507": Cause.FULL,
}
_SIGNS: Final = (
    ("time exceeds the maximum allowed", Cause.CLOCK),  # some stores call a skewed clock AccessDenied
    ("Received redirect without LOCATION", Cause.REGION),
    ("ConnectionRefused", Cause.REFUSED),
    ("dns error", Cause.UNKNOWN_HOST),
    ("InvalidCertificate", Cause.TLS),
    ("InvalidMessage", Cause.TLS),
    ("AlertReceived", Cause.TLS),
    ("kind: Timeout", Cause.SILENT),
    ("TimedOut", Cause.SILENT),
)
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9_.]{1,60})</Code>|\(code: ([A-Za-z0-9_.]{1,60})\)")
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")


def fault_of(error: Exception, operation: str) -> StorageError:
    """What an error of the library means."""
    text = str(error)
    code = _first(_CODE, text)
    status = _first(_STATUS, text)
    if "non-partial response" in text:
        return RangeIgnored("The store ignores ranges.")
    if code == "NoSuchKey" or (status == "404" and not code):
        return ObjectMissing("There is no such object.")
    cause = _cause(text, code, status)
    if cause is Cause.FULL:
        return StorageFull("The store has no room left.")
    return StoreFailed(cause, code or status, operation)


def _cause(text: str, code: str, status: str) -> Cause:
    for sign, cause in _SIGNS:
        if sign in text:
            return cause
    if code in _CODES:
        return _CODES[code]
    if status in _STATUSES:
        return _STATUSES[status]
    return Cause.UNREACHABLE if "HttpError" in text else Cause.OTHER


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return "" if found is None else next(filter(None, found.groups()), "")


@contextmanager
def told_apart(operation: str) -> Iterator[None]:
    """Turns what the library raises into the `StorageError` that it means; without the cause, which names hosts.

    Only the library may be called in it: what an object's body raises is none of the store's.
    """
    try:
        yield
    except (BaseError, FileNotFoundError, NotImplementedError) as error:
        raise fault_of(error, operation) from None
