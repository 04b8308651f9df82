"""What only a store behind a network can get wrong: it dies, hangs, refuses; and links that it signs itself."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx2
import obstore
import pytest
from tests.support.s3 import S3Server, answering_206
from tests.support.stack import until

from comfy_api_service.storage import s3, s3_upload
from comfy_api_service.storage.base import StorageError
from comfy_api_service.storage.presign import Presigner
from comfy_api_service.storage.s3 import PROBES, Bucket, S3Storage
from comfy_api_service.storage.s3_faults import Cause, StoreFailed

KEY = "jobs/job_1/1/video_0.mp4"
LARGE = 30_000_000
"""Four parts."""


@pytest.fixture
async def storage(bucket: Bucket) -> AsyncIterator[S3Storage]:
    made = S3Storage(bucket)
    yield made
    await made.close()


@pytest.fixture
async def own(own_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Storage]:
    """In the bucket `own` of a server that the test may harm; a hanging one is given up soon."""
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 0.5)
    made = S3Storage(own_s3.bucket("own"))
    yield made
    await made.close()


def noise(size: int) -> bytes:
    return hashlib.shake_128(b"noise").digest(size)


async def pieces(data: bytes, step: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


async def put(storage: S3Storage, data: bytes = b"content", key: str = KEY) -> None:
    await storage.put(key, pieces(data), media_type="video/mp4")


async def content(storage: S3Storage, key: str = KEY, **part: int) -> bytes:
    async with storage.open(key) as reader:
        return b"".join([piece async for piece in reader.chunks(**part)])


# --- uploads ---------------------------------------------------------------------------------------------


async def test_a_large_object_goes_in_parts_and_comes_back_whole(
    storage: S3Storage, s3_store: S3Server, bucket: Bucket
) -> None:
    data = noise(LARGE)
    stored = await storage.put(KEY, pieces(data, 999_999), media_type="video/mp4")
    assert (stored.bytes, stored.sha256) == (LARGE, hashlib.sha256(data).hexdigest())
    assert await content(storage) == data
    assert await content(storage, start=20_000_000, end=20_000_010) == data[20_000_000:20_000_010]
    assert s3_store.files(bucket) == [KEY]


@pytest.mark.parametrize("size", [s3_upload.PART, s3_upload.PART + 1, 2 * s3_upload.PART])
async def test_the_sizes_at_which_parts_begin_and_end(storage: S3Storage, size: int) -> None:
    await put(storage, noise(size))
    assert await content(storage) == noise(size)


class Broke(Exception):
    pass


async def test_a_body_that_breaks_leaves_no_parts(
    storage: S3Storage, s3_store: S3Server, bucket: Bucket
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(LARGE)):
            yield piece
        await until(lambda: s3_store.files(bucket) != [])
        raise Broke

    with pytest.raises(Broke):
        await storage.put(KEY, breaking(), media_type="video/mp4")
    await until(lambda: s3_store.files(bucket) == [])


async def test_a_cancel_leaves_no_parts(storage: S3Storage, s3_store: S3Server, bucket: Bucket) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(LARGE)):
            yield piece
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.put(KEY, endless(), media_type="video/mp4"))
    await waiting.wait()
    await until(lambda: s3_store.files(bucket) != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: s3_store.files(bucket) == [])


# --- a store that dies -----------------------------------------------------------------------------------


async def test_a_store_that_is_killed_in_mid_upload_fails_it_and_works_when_it_is_back(
    own: S3Storage, own_s3: S3Server
) -> None:
    async def killing() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(LARGE)):
            yield piece
        own_s3.kill()
        async for piece in pieces(noise(LARGE)):
            yield piece

    with pytest.raises(StoreFailed):
        await own.put(KEY, killing(), media_type="video/mp4")
    own_s3.start()
    assert [line async for line in own.list_prefix("")] == []
    await put(own, noise(LARGE))
    assert await content(own) == noise(LARGE)


async def test_a_store_that_is_stopped_in_mid_upload_fails_it_in_bounded_time(
    own: S3Storage, own_s3: S3Server
) -> None:
    async def stopping() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(LARGE)):
            yield piece
        own_s3.pause()
        async for piece in pieces(noise(LARGE)):
            yield piece

    with pytest.raises(StoreFailed) as failed:
        await own.put(KEY, stopping(), media_type="video/mp4")
    assert failed.value.cause is Cause.SILENT
    own_s3.resume()
    await put(own)
    assert await content(own) == b"content"


async def test_a_store_that_goes_on_in_time_is_waited_for(own_s3: S3Server) -> None:
    storage = S3Storage(own_s3.bucket("patient"))
    own_s3.pause()
    task = asyncio.create_task(put(storage))
    done, _ = await asyncio.wait({task}, timeout=0.3)
    assert not done
    own_s3.resume()
    await task
    assert await content(storage) == b"content"


async def test_everything_fails_by_name_while_the_store_is_down(own: S3Storage, own_s3: S3Server) -> None:
    await put(own, noise(100_000))
    async with own.open(KEY) as reader:
        own_s3.kill()
        with pytest.raises(StoreFailed):
            [piece async for piece in reader.chunks()]
    with pytest.raises(StoreFailed) as failed:
        await put(own)
    assert (failed.value.cause, failed.value.operation) == (Cause.REFUSED, "put")
    with pytest.raises(StoreFailed):
        await content(own)
    with pytest.raises(StoreFailed):
        await own.delete([KEY])
    with pytest.raises(StoreFailed):
        [line async for line in own.list_prefix("")]
    with pytest.raises(StoreFailed):
        await own.check()
    own_s3.start()
    await own.check()


async def test_a_check_of_a_hanging_store_ends(own_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 3600.0)
    monkeypatch.setattr(s3, "CHECK_SECONDS", 0.2)
    patient = S3Storage(own_s3.bucket("patient"))
    own_s3.pause()
    with pytest.raises(StoreFailed) as failed:
        await patient.check()
    assert failed.value.cause is Cause.SILENT
    own_s3.resume()


async def test_a_process_ends_although_an_upload_that_was_given_up_hangs(
    own: S3Storage, own_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CLOSING_SECONDS", 0.1)

    async def stopping() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(LARGE)):
            yield piece
        own_s3.pause()
        raise Broke

    with pytest.raises(Broke):
        await own.put(KEY, stopping(), media_type="video/mp4")
    await own.close()
    assert own._given_up == set()
    own_s3.resume()


# --- what is wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"name": "absent"}, Cause.NO_BUCKET),
        ({"access_key": "AKIDUNKNOWN"}, Cause.UNKNOWN_KEY),
        ({"secret_key": "another"}, Cause.SIGNATURE),
        ({"endpoint": "http://no-such-host.invalid"}, Cause.UNKNOWN_HOST),
        ({"endpoint": "http://127.0.0.1:1"}, Cause.REFUSED),
        ({"endpoint": "https"}, Cause.TLS),
    ],
)
async def test_the_cause_is_told_and_nothing_else(
    bucket: Bucket, change: dict[str, str], cause: Cause
) -> None:
    if change.get("endpoint") == "https":
        change = {"endpoint": bucket.endpoint.replace("http://", "https://")}
    wrong = replace(bucket, **change)
    storage = S3Storage(wrong)
    with pytest.raises(StoreFailed) as failed:
        await put(storage)
    assert failed.value.cause is cause
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    shown = f"{failed.value!r} {failed.value}"
    assert not any(word in shown for word in (wrong.name, "127.0.0.1", "invalid", KEY, wrong.secret_key))
    with pytest.raises(StorageError):
        await storage.check()


async def test_variables_of_other_programs_change_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "another",
        "AWS_SECRET_ACCESS_KEY": "another",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-nowhere-9",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_EXPRESS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    seen: set[str] = set()
    async with answering_206(bucket, seen=seen) as proxy:
        storage = S3Storage(proxy)
        await put(storage)
        assert await content(storage) == b"content"
    assert not any("token" in name for name in seen)
    assert {"authorization", "x-amz-date"} <= seen


def test_a_bucket_that_is_shown_hides_its_secret(bucket: Bucket) -> None:
    assert bucket.secret_key not in repr(bucket)


async def test_old_probes_of_processes_that_died_are_cleared(storage: S3Storage) -> None:
    await put(storage, key=f"{PROBES}/left")
    await put(storage)
    assert await storage.clear_unfinished(time.time() - 3600) == 0
    assert await storage.clear_unfinished(time.time() + 3600) == 1
    assert [line.key async for line in storage.list_prefix("")] == [KEY]


async def test_many_objects_are_listed_and_deleted(storage: S3Storage) -> None:
    keys = [f"jobs/job_{number % 7}/1/image_{number}.png" for number in range(1100)]
    limit = asyncio.Semaphore(20)

    async def one(key: str) -> None:
        async with limit:
            await put(storage, key.encode(), key)

    await asyncio.gather(*map(one, keys))
    assert sorted([line.key async for line in storage.list_prefix("jobs/")]) == sorted(keys)
    await storage.delete(keys)
    assert [line.key async for line in storage.list_prefix("")] == []


# --- links -----------------------------------------------------------------------------------------------


def link(storage: S3Storage, seconds: float = 60, **given: Any) -> str:
    told = {"media_type": "image/png", "filename": "a fox.png", **given}
    return storage.link(KEY, expires_at=time.time() + seconds, **told)


async def test_a_link_opens_for_anybody_with_type_name_and_parts(storage: S3Storage) -> None:
    await put(storage, b"0123456789")
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(link(storage))
        assert (answer.status_code, answer.content) == (200, b"0123456789")
        assert answer.headers["content-type"] == "image/png"
        assert (
            answer.headers["content-disposition"]
            == "inline; filename=\"a fox.png\"; filename*=UTF-8''a%20fox.png"
        )
        part = await http.get(link(storage), headers={"Range": "bytes=2-4"})
        assert (part.content, part.headers["content-range"]) == (b"234", "bytes 2-4/10")
        page = await http.get(link(storage, media_type="text/html", filename="x.html"))
        assert page.headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    ("word", "another"),
    [
        (KEY, "jobs/job_2/1/video_0.mp4"),
        ("image%2Fpng", "text%2Fhtml"),
        ("fox", "cat"),
        ("X-Amz-Expires=6", "X-Amz-Expires=7"),
        ("/us-east-1/".replace("/", "%2F"), "%2Feu-west-1%2F"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ],
)
async def test_a_link_that_was_changed_is_refused(storage: S3Storage, word: str, another: str) -> None:
    await put(storage, b"secret")
    await put(storage, b"secret", "jobs/job_2/1/video_0.mp4")
    made = link(storage)
    assert word in made
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(made.replace(word, another, 1))
    assert answer.status_code in {400, 403}
    assert b"secret" not in answer.content


@pytest.mark.parametrize("seconds", [-1, -60, -90_000])
async def test_a_link_that_has_expired_is_refused(storage: S3Storage, seconds: float) -> None:
    await put(storage, b"secret")
    made = link(storage, seconds)
    assert int(made.partition("X-Amz-Expires=")[2].partition("&")[0]) in {1, 2}
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(made)
    assert answer.status_code in {400, 403}
    assert b"secret" not in answer.content


async def test_a_link_is_good_for_a_week_and_not_longer(storage: S3Storage) -> None:
    await put(storage)
    async with httpx2.AsyncClient(trust_env=False) as http:
        for seconds in (7 * 86_400, 30 * 86_400):
            made = link(storage, seconds)
            assert "X-Amz-Expires=604800&" in made
            assert (await http.get(made)).status_code == 200


async def test_links_name_the_public_address(bucket: Bucket) -> None:
    public = S3Storage(replace(bucket, public_url="https://pictures.example"))
    made = link(public)
    assert made.startswith(f"https://pictures.example/{bucket.name}/{quote(KEY)}?")
    await put(public)
    async with httpx2.AsyncClient(
        trust_env=False
    ) as http:  # what a proxy passes on: another address, the same Host
        answer = await http.get(
            made.replace("https://pictures.example", bucket.endpoint), headers={"Host": "pictures.example"}
        )
    assert answer.content == b"content"


async def test_links_of_the_library_say_the_same(storage: S3Storage, bucket: Bucket) -> None:
    """The signature, made by other hands."""
    theirs = obstore.sign(storage._store, "GET", KEY, timedelta(seconds=60))
    moment = datetime.strptime(theirs.partition("X-Amz-Date=")[2][:16], "%Y%m%dT%H%M%S%z").timestamp()
    presigner = Presigner(
        base_url=bucket.endpoint,
        bucket=bucket.name,
        region=bucket.region,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
    )
    assert presigner.link(KEY, now=moment, expires_at=moment + 60, query={}) == theirs
