"""What every store must do; a new implementation joins by a line in `MAKERS`."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx2
import pytest
from tests.support.s3 import answering_206

from comfy_api_service.domain.errors import Refused
from comfy_api_service.storage.base import InvalidKey, ObjectMissing, Storage, StorageUnavailable
from comfy_api_service.storage.links import LinkSigner
from comfy_api_service.storage.local import LocalStorage
from comfy_api_service.storage.s3 import Bucket, S3Storage

KEY = "jobs/job_01ABC/1/image_0.png"
SIZES = [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000]


class LinkRefused(Exception):
    pass


@dataclass(frozen=True)
class Subject:
    """A store under test, and a way to follow its links at a moment: the bytes, the type, the file name."""

    storage: Storage
    follow: Callable[[str, float], Awaitable[tuple[bytes, str, str]]]


@asynccontextmanager
async def local(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    folder = request.getfixturevalue("tmp_path")
    signer = LinkSigner(b"a secret of this test", "https://api.example")
    storage = LocalStorage(folder / "artifacts", signer)

    async def follow(link: str, now: float) -> tuple[bytes, str, str]:
        parts = urlsplit(link)
        key = parts.path.removeprefix("/artifacts/")
        try:
            grant = signer.verify(key, dict(parse_qsl(parts.query)), now)
        except Refused as error:
            raise LinkRefused from error
        return await content(storage, grant.key), grant.media_type, grant.filename

    yield Subject(storage, follow)
    storage.close()


@asynccontextmanager
async def s3(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """As the test server is: it answers a range as if it were the whole."""
    async with in_bucket(request.getfixturevalue("bucket")) as subject:
        yield subject


@asynccontextmanager
async def s3_with_ranges(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with answering_206(request.getfixturevalue("bucket")) as bucket, in_bucket(bucket) as subject:
        yield subject


@asynccontextmanager
async def in_bucket(bucket: Bucket) -> AsyncIterator[Subject]:
    storage = S3Storage(bucket)

    async def follow(link: str, now: float) -> tuple[bytes, str, str]:
        del now  # the server has a clock of its own
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(link)
        if answer.status_code != 200:
            raise LinkRefused
        name = unquote(answer.headers["content-disposition"].partition("filename*=UTF-8''")[2])
        return answer.content, answer.headers["content-type"], name

    yield Subject(storage, follow)
    await storage.close()


MAKERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Subject]]] = {
    "local": local,
    "s3": s3,
    "s3 with ranges": s3_with_ranges,
}


@pytest.fixture(params=MAKERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with MAKERS[request.param](request) as made:
        yield made


@pytest.fixture
def storage(subject: Subject) -> Storage:
    return subject.storage


async def body(data: bytes, step: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


def noise(size: int) -> bytes:
    return hashlib.shake_128(str(size).encode()).digest(size)


async def content(storage: Storage, key: str, **part: int) -> bytes:
    async with storage.open(key) as reader:
        return b"".join([piece async for piece in reader.chunks(**part)])


async def put(storage: Storage, key: str, data: bytes) -> None:
    await storage.put(key, body(data), media_type="image/png")


async def listed(storage: Storage, prefix: str) -> list[str]:
    return sorted([line.key async for line in storage.list_prefix(prefix)])


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_is_there_with_its_size_and_sum(storage: Storage, size: int) -> None:
    data = noise(size)
    stored = await storage.put(KEY, body(data), media_type="image/png")
    assert (stored.key, stored.bytes, stored.sha256) == (KEY, size, hashlib.sha256(data).hexdigest())
    async with storage.open(KEY) as reader:
        assert reader.size == size
    assert await content(storage, KEY) == data


@pytest.mark.parametrize("size", [1000, 3_000_000])
@pytest.mark.parametrize(
    "part", [(0, 10), (10, None), (500, 500), (990, 5_000_000), (5_000_000, None), (700, 800)]
)
async def test_a_part_is_read_as_a_slice(storage: Storage, size: int, part: tuple[int, int | None]) -> None:
    await put(storage, KEY, noise(size))
    start, end = part
    async with storage.open(KEY) as reader:
        assert b"".join([piece async for piece in reader.chunks(start, end)]) == noise(size)[start:end]


@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_the_same_key_again_replaces(storage: Storage, size: int) -> None:
    await put(storage, KEY, noise(size))
    async with storage.open(KEY) as reader:
        await put(storage, KEY, noise(4_000_000))
        with contextlib.suppress(StorageUnavailable):
            assert b"".join([piece async for piece in reader.chunks()]) == noise(size)
    await put(storage, KEY, b"new")
    assert await content(storage, KEY) == b"new"
    assert await listed(storage, "") == [KEY]


class Broke(Exception):
    pass


async def breaking(data: bytes) -> AsyncIterator[bytes]:
    async for piece in body(data):
        yield piece
    raise Broke


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
async def test_a_body_that_breaks_leaves_what_was_before(storage: Storage, size: int) -> None:
    with pytest.raises(Broke):
        await storage.put(KEY, breaking(noise(size)), media_type="image/png")
    assert await listed(storage, "") == []
    await put(storage, KEY, b"old")
    with pytest.raises(Broke):
        await storage.put(KEY, breaking(noise(size)), media_type="image/png")
    assert await content(storage, KEY) == b"old"


async def test_a_put_that_is_canceled_leaves_nothing(storage: Storage) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield noise(1_000_000)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.put(KEY, endless(), media_type="image/png"))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await listed(storage, "") == []
    with pytest.raises(ObjectMissing):
        await content(storage, KEY)


async def test_what_is_absent_is_missing(storage: Storage) -> None:
    await put(storage, KEY, b"x")
    for key in ("jobs/none.png", "jobs", "jobs/job_01ABC/1", f"{KEY}/below", "none"):
        with pytest.raises(ObjectMissing):
            await content(storage, key)


async def test_deleting_takes_those_named_and_no_other(storage: Storage) -> None:
    for name in ("a", "b", "c"):
        await put(storage, f"jobs/job_1/1/{name}.png", b"x")
    await put(storage, "jobs/job_2/1/a.png", b"x")
    await storage.delete(["jobs/job_1/1/a.png", "jobs/job_1/1/c.png", "jobs/none"])
    assert await listed(storage, "") == ["jobs/job_1/1/b.png", "jobs/job_2/1/a.png"]
    await storage.delete(["jobs/job_1/1/b.png", "jobs/job_2/1/a.png"])
    await storage.delete(["jobs/job_1/1/b.png"])
    await storage.delete([])
    assert await listed(storage, "") == []


async def test_a_listing_goes_by_the_beginning_of_keys(storage: Storage) -> None:
    keys = ["jobs/job_1/1/a.png", "jobs/job_1/2/a.png", "jobs/job_10/1/a.png", "uploads/u1"]
    for key in keys:
        await put(storage, key, key.encode())
    assert await listed(storage, "") == keys
    assert await listed(storage, "jobs/") == keys[:3]
    assert await listed(storage, "jobs/job_1") == keys[:3]
    assert await listed(storage, "jobs/job_1/") == keys[:2]
    assert await listed(storage, "jobs/job_1/1/a.png") == keys[:1]
    assert await listed(storage, "u") == keys[3:]
    assert await listed(storage, "none/") == []
    async for line in storage.list_prefix("uploads/"):
        assert line.bytes == len("uploads/u1")
        assert abs(line.modified_at - time.time()) < 600


async def test_puts_and_deletes_in_the_same_folder_do_not_harm_each_other(storage: Storage) -> None:
    async def churn(name: int) -> None:
        for _ in range(25):
            await put(storage, f"jobs/job_1/1/{name}.png", b"x")
            await storage.delete([f"jobs/job_1/1/{name}.png"])
        await put(storage, f"jobs/job_1/1/{name}.png", b"x")

    await asyncio.gather(*(churn(name) for name in range(6)))
    assert await listed(storage, "") == [f"jobs/job_1/1/{name}.png" for name in range(6)]


async def test_the_same_key_put_by_many_is_one_of_them_whole(storage: Storage) -> None:
    bodies = [bytes([n]) * 300_000 for n in range(6)]
    await asyncio.gather(*(put(storage, KEY, data) for data in bodies))
    assert await content(storage, KEY) in bodies


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "a\0b",
        "a\n",
        "a b",
        "é",
        "a/" * 8 + "b",
        "a" * 128,
        "a?b",
        "a%2e",
        "~",
    ],
)
async def test_a_key_that_leads_elsewhere_is_refused_by_everything(storage: Storage, key: str) -> None:
    with pytest.raises(InvalidKey):
        await put(storage, key, b"x")
    with pytest.raises(InvalidKey):
        await content(storage, key)
    with pytest.raises(InvalidKey):
        await storage.delete([KEY, key])
    with pytest.raises(InvalidKey):
        storage.link(key, expires_at=1, media_type="image/png", filename="x")
    if key not in {"", "a/"}:
        with pytest.raises(InvalidKey):
            await listed(storage, key)


async def test_a_link_gives_the_object_with_type_and_name_until_it_ends(subject: Subject) -> None:
    await put(subject.storage, KEY, b"content")
    now = time.time()
    link = subject.storage.link(KEY, expires_at=now + 60, media_type="image/png", filename='a "b" ü&c=d.png')
    assert link.startswith("http")
    got: Any = await subject.follow(link, now)
    assert got == (b"content", "image/png", 'a "b" ü&c=d.png')


async def test_a_link_to_another_key_is_refused(subject: Subject) -> None:
    await put(subject.storage, KEY, b"content")
    await put(subject.storage, "jobs/other.png", b"other")
    now = time.time()
    link = subject.storage.link(KEY, expires_at=now + 60, media_type="image/png", filename="a.png")
    with pytest.raises(LinkRefused):
        await subject.follow(link.replace(KEY, "jobs/other.png"), now)


async def test_a_check_leaves_nothing_behind(storage: Storage) -> None:
    await storage.check()
    assert await listed(storage, "") == []


async def test_clearing_the_unfinished_takes_no_object(storage: Storage) -> None:
    await put(storage, KEY, b"x")
    assert await storage.clear_unfinished(time.time() + 600) == 0
    assert await listed(storage, "") == [KEY]
