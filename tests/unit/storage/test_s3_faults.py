"""Answers that no server of the tests gives, as the library reports them."""

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from comfy_api_service.storage.base import ObjectMissing, StorageError, StorageFull
from comfy_api_service.storage.s3_faults import Cause, StoreFailed, told_apart

REPORT = """Generic S3 error: Error performing PUT http://store.internal:9000/bucket/jobs/job_1/1/a.png in 1ms - \
Server returned non-2xx status code: {status} Some Words: {body}

Debug source:
Generic {{ store: "S3", inner: Status {{ status: {status}, body: Some("{body}") }} }}"""


def told(error: Exception) -> StorageError:
    with pytest.raises(StorageError) as found, told_apart("put"):
        raise error
    return found.value


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (403, "RequestTimeTooSkewed", Cause.CLOCK),
        (403, "AccessDenied", Cause.FORBIDDEN),
        (403, None, Cause.FORBIDDEN),
        (401, None, Cause.FORBIDDEN),
        (400, "AuthorizationHeaderMalformed", Cause.REGION),
        (301, "PermanentRedirect", Cause.REGION),
        (503, "SlowDown", Cause.BUSY),
        (503, None, Cause.BUSY),
        (404, "NoSuchBucket", Cause.NO_BUCKET),
        (404, "NoSuchUpload", Cause.OTHER),
        (500, "InternalError", Cause.OTHER),
        (405, None, Cause.OTHER),
    ],
)
def test_each_answer_has_its_cause(status: int, code: str | None, cause: Cause) -> None:
    body = "<html>no store</html>" if code is None else f"<Error><Code>{code}</Code></Error>"
    found = told(GenericError(REPORT.format(status=status, body=body)))
    assert isinstance(found, StoreFailed)
    assert (found.cause, found.code, found.operation) == (cause, code or str(status), "put")
    assert "store.internal" not in str(found)


@pytest.mark.parametrize(
    ("status", "code"),
    [(507, "XMinioStorageFull"), (507, None), (403, "QuotaExceeded"), (409, "StorageFull")],
)
def test_a_full_store_is_full(status: int, code: str | None) -> None:
    body = "" if code is None else f"<Error><Code>{code}</Code></Error>"
    assert isinstance(told(PermissionDeniedError(REPORT.format(status=status, body=body))), StorageFull)


def test_a_clock_that_differs_is_told_from_a_missing_right() -> None:
    body = (
        "<Error><Code>AccessDenied</Code><Message>The difference between the request time and the server's time "
        "exceeds the maximum allowed.</Message></Error>"
    )
    found = told(PermissionDeniedError(REPORT.format(status=403, body=body)))
    assert isinstance(found, StoreFailed)
    assert found.cause is Cause.CLOCK


@pytest.mark.parametrize("body", ["<Error><Code>NoSuchKey</Code></Error>", ""])
def test_what_is_absent_is_missing(body: str) -> None:
    assert isinstance(told(FileNotFoundError(REPORT.format(status=404, body=body))), ObjectMissing)


def test_one_of_many_deletes_that_failed_is_named_by_its_code() -> None:
    text = (
        "Generic S3 error: DeleteObjects request failed for key jobs/job_1/1/a.png: no (code: AccessDenied)"
    )
    found = told(GenericError(text))
    assert isinstance(found, StoreFailed)
    assert (found.cause, "a.png" in str(found)) == (Cause.FORBIDDEN, False)


def test_an_answer_that_is_no_stores_is_other() -> None:
    text = "Generic S3 error: Unable to extract metadata from headers: ETag Header missing from response"
    found = told(GenericError(text))
    assert isinstance(found, StoreFailed)
    assert found.cause is Cause.OTHER


def test_what_is_none_of_the_stores_passes() -> None:
    with pytest.raises(KeyError), told_apart("put"):
        raise KeyError
