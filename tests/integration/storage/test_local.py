"""What only files on a disk can get wrong: durability, a full disk, a disk that hangs, leftovers."""

import asyncio
import errno
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.storage import local, tree
from comfy_api_service.storage.base import ObjectMissing, StorageError, StorageFull, StorageUnavailable
from comfy_api_service.storage.links import LinkSigner
from comfy_api_service.storage.local import LocalStorage

KEY = "jobs/job_1/1/image_0.png"
LARGE = 3_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "artifacts"


@pytest.fixture
def storage(folder: Path) -> Iterator[LocalStorage]:
    made = LocalStorage(folder, LinkSigner(b"secret", ""))
    yield made
    made.close()


async def body(data: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


async def put(storage: LocalStorage, data: bytes, key: str = KEY) -> None:
    await storage.put(key, body(data), media_type="image/png")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def folders_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a thread is waited for
            await asyncio.sleep(0.005)


@pytest.fixture
def hops(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is done in threads."""
    seen: list[str] = []
    submit = storage._threads.submit

    def counted(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(getattr(work, "__name__", ""))
        return submit(work, *args, **kwargs)

    monkeypatch.setattr(storage._threads, "submit", counted)
    return seen


async def test_a_picture_costs_one_hop_to_write_and_one_to_read(
    storage: LocalStorage, hops: list[str]
) -> None:
    await put(storage, bytes(500_000))
    assert hops == ["commit"]
    async with storage.open(KEY) as reader:
        assert len([piece async for piece in reader.chunks()]) == 1
    assert hops == ["commit", "Opened"]


async def test_a_large_body_costs_a_hop_for_each_mebibyte(storage: LocalStorage, hops: list[str]) -> None:
    await put(storage, bytes(LARGE))
    assert hops == ["write", "write", "commit"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell what is open")
async def test_the_disk_has_file_and_folders_before_the_put_is_done(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: the file's bytes, the rename, then every folder that got a new entry."""
    await put(storage, b"x", "other/thing")
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spied_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("file" if path.parent.name == tree.UNFINISHED else str(path.relative_to(folder)))
        fsync(descriptor)

    def spied_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(Path, "replace", spied_replace)
    await put(storage, bytes(500_000))
    assert events == ["file", "rename", "jobs/job_1/1", "jobs/job_1", "jobs", "."]
    events.clear()
    await put(storage, bytes(10), "jobs/job_1/1/image_1.png")
    assert events == ["file", "rename", "jobs/job_1/1"]
    events.clear()
    await storage.delete([KEY, "jobs/job_1/1/image_1.png"])
    await put(storage, bytes(LARGE))
    assert events == ["file", "rename", "jobs/job_1/1", "jobs/job_1", "jobs", "."]


def failing(code: int, when: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
    def fail(*args: Any, **_: Any) -> Any:
        if when():
            raise OSError(code, os.strerror(code), "/srv/secret/place")
        return os_write(*args)

    return fail


os_write = os.write


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        ("write", errno.ENOSPC, StorageFull),
        ("write", errno.EDQUOT, StorageFull),
        ("write", errno.EIO, StorageUnavailable),
        ("fsync", errno.ENOSPC, StorageFull),
        ("fsync", errno.EIO, StorageUnavailable),
        ("open", errno.ENOSPC, StorageFull),
        ("open", errno.EACCES, StorageUnavailable),
        ("open", errno.ENOENT, StorageUnavailable),
        ("replace", errno.ENOSPC, StorageFull),
        ("replace", errno.ENOENT, StorageUnavailable),
        ("mkdir", errno.ENOSPC, StorageFull),
        ("mkdir", errno.EROFS, StorageUnavailable),
    ],
)
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_disk_that_fails_is_told_by_name_and_keeps_nothing(
    storage: LocalStorage,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    error: type[StorageError],
    size: int,
) -> None:
    await put(storage, b"old", "jobs/job_0/1/image_0.png")
    with monkeypatch.context() as patch:
        patch.setattr(Path if call in {"replace", "mkdir"} else os, call, failing(code))
        with pytest.raises(error) as caught:
            await put(storage, bytes(size))
    assert "secret" not in str(caught.value)
    assert files_in(folder) == ["jobs/job_0/1/image_0.png"]
    await put(storage, bytes(size))


async def test_a_disk_that_fills_on_the_way_keeps_nothing(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC, lambda: next(calls) > 14))
    with pytest.raises(StorageFull):
        await put(storage, bytes(LARGE))
    assert files_in(folder) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
async def test_a_real_full_device_is_full(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def redirected(path: Any, flags: int, *rest: Any) -> int:
        return real("/dev/full", os.O_WRONLY) if flags & os.O_CREAT else real(path, flags, *rest)

    monkeypatch.setattr(os, "open", redirected)
    with pytest.raises(StorageFull):
        await put(storage, b"x")


async def test_short_writes_lose_nothing(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda file, data: os_write(file, bytes(data[:70_000])))
    data = os.urandom(500_000)
    await put(storage, data)
    async with storage.open(KEY) as reader:
        assert b"".join([piece async for piece in reader.chunks()]) == data


async def test_a_cancel_while_a_thread_writes_leaves_nothing(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    still_open: list[bool] = []

    def slow(descriptor: int) -> None:
        entered.set()
        go_on.wait(10)
        # Closed too early, the number could by now be another file's.
        still_open.append(stat.S_ISREG(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.create_task(put(storage, bytes(1000)))
    await until(entered.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task  # at once, though the disk still hangs
    assert not go_on.is_set()
    go_on.set()
    await until(lambda: files_in(folder) == [])
    assert still_open == [True]
    with pytest.raises(ObjectMissing):
        async with storage.open(KEY):
            pass


async def test_a_check_of_a_hanging_disk_ends_and_does_not_pile_up(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, hops: list[str]
) -> None:
    go_on = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: go_on.wait(10))
        patch.setattr(local, "CHECK_SECONDS", 0.05)
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await storage.check()
    assert hops == ["probe"]
    go_on.set()
    await storage.check()


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageUnavailable)])
async def test_a_check_tells_what_is_wrong(
    storage: LocalStorage,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[StorageError],
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(error):
        await storage.check()
    assert files_in(folder) == []


async def test_what_is_above_or_below_an_object_is_none_to_delete(
    storage: LocalStorage, folder: Path
) -> None:
    await put(storage, b"x")
    await storage.delete(["jobs/job_1", "jobs/job_1/1", f"{KEY}/b"])
    assert files_in(folder) == [KEY]


async def test_empty_folders_go_with_the_last_object(storage: LocalStorage, folder: Path) -> None:
    await put(storage, b"x")
    await put(storage, b"x", "jobs/job_2/1/a.png")
    await storage.delete([KEY])
    assert folders_in(folder) == [".unfinished", "jobs", "jobs/job_2", "jobs/job_2/1"]
    await storage.delete(["jobs/job_2/1/a.png"])
    assert folders_in(folder) == [".unfinished"]


async def test_a_folder_that_a_delete_takes_away_is_made_again(
    storage: LocalStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace
    taken: list[Path] = []

    def raced(self: Path, target: Path) -> Path:
        if len(taken) < 3:
            taken.append(target.parent)
            target.parent.rmdir()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", raced)
    await put(storage, b"x")
    assert files_in(folder) == [KEY]


async def test_leftovers_of_a_killed_process_are_cleared_by_age(storage: LocalStorage, folder: Path) -> None:
    await put(storage, b"x")
    for name, age in (("old", 90_000), ("new", 10)):
        path = folder / tree.UNFINISHED / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    assert await storage.clear_unfinished(time.time() - 86_400) == 1
    assert files_in(folder) == [f"{tree.UNFINISHED}/new", KEY]
    assert [line.key async for line in storage.list_prefix("")] == [KEY]


async def test_links_within_the_folder_lead_nowhere(
    storage: LocalStorage, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    await put(storage, b"x")
    (folder / "jobs" / "link").symlink_to(outside)
    with pytest.raises(StorageError):
        async with storage.open("jobs/link"):
            pass
    assert [line.key async for line in storage.list_prefix("")] == [KEY]


async def test_an_object_below_another_object_is_an_error_of_the_store(
    storage: LocalStorage, folder: Path
) -> None:
    await put(storage, b"x", "a")
    with pytest.raises(StorageError):
        await put(storage, b"x", "a/b")
    assert files_in(folder) == ["a"]


async def test_a_file_cut_under_an_open_reader_is_no_silent_end(storage: LocalStorage, folder: Path) -> None:
    await put(storage, bytes(LARGE))
    async with storage.open(KEY) as reader:
        os.truncate(folder / KEY, 10)
        with pytest.raises(StorageUnavailable):
            [_ async for _ in reader.chunks()]


async def test_a_listing_is_made_in_pieces(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, hops: list[str]
) -> None:
    monkeypatch.setattr(local, "_LISTED_AT_ONCE", 4)
    for n in range(10):
        await put(storage, b"x", f"jobs/{n}")
    hops.clear()
    assert len([line async for line in storage.list_prefix("")]) == 10
    assert hops == ["_some"] * 4
