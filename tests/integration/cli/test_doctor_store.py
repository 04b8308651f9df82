"""The doctor's look at a real store, sound and otherwise."""

from dataclasses import replace

import pytest
from tests.support.s3 import S3Server, answering_206

from comfy_api_service.cli.doctor.finding import Level
from comfy_api_service.cli.doctor.store import store
from comfy_api_service.storage import s3
from comfy_api_service.storage.s3 import Bucket


async def test_a_store_as_it_should_be(bucket: Bucket, s3_store: S3Server) -> None:
    usable, linked = await store(bucket)
    assert (usable.status, linked.status) == (Level.OK, Level.OK)
    assert bucket.name in usable.message
    assert s3_store.files(bucket) == []


@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        ({"name": "absent"}, "no such bucket", "S3_BUCKET"),
        ({"access_key": "AKIDUNKNOWN"}, "does not know the access key", "S3_ACCESS_KEY"),
        ({"secret_key": "another"}, "signature does not fit", "S3_SECRET_KEY"),
        ({"endpoint": "http://127.0.0.1:1"}, "connection refused", "S3_ENDPOINT"),
        ({"endpoint": "http://no-such-host.invalid"}, "host name is not known", "S3_ENDPOINT"),
    ],
)
async def test_each_fault_has_its_remedy(
    bucket: Bucket, change: dict[str, str], message: str, remedy: str
) -> None:
    wrong = replace(bucket, **change)
    (found,) = await store(wrong)
    assert found.status is Level.FAULT
    assert message in found.message
    assert remedy in found.remedy
    assert wrong.secret_key not in str(found)


async def test_a_store_that_hangs(own_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "CHECK_SECONDS", 0.2)
    bucket = own_s3.bucket("results")
    own_s3.pause()
    (found,) = await store(bucket)
    own_s3.resume()
    assert (found.status, found.message) == (Level.FAULT, "no answer in time")


async def test_links_to_an_address_where_nobody_is(bucket: Bucket) -> None:
    usable, linked = await store(replace(bucket, public_url="http://127.0.0.1:1"))
    assert usable.status is Level.OK
    assert linked.status is Level.WARNING
    assert "connection refused" in linked.message
    assert "S3_PUBLIC_URL" in linked.remedy


async def test_links_through_a_proxy_that_changes_the_host(bucket: Bucket) -> None:
    async with answering_206(bucket, keeps_host=False) as proxy:
        usable, linked = await store(replace(bucket, public_url=proxy.endpoint))
    assert usable.status is Level.OK
    assert (linked.status, linked.message) == (Level.FAULT, "are refused (HTTP 403)")
    assert "Host" in linked.remedy
