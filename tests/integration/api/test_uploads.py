"""Uploads over HTTP: what is taken, what is refused and how, what is kept once."""

import asyncio
import hashlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.api import Client, connected
from tests.support.files import files_below
from tests.support.people import AUTH, person
from tests.support.pictures import jpeg, png
from tests.support.stack import running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator

PATH = "/api/v1/upload"


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url, max_upload_size=100_000) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    async with connected(service.app) as client:
        yield client


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def stored(folder: Path) -> list[Path]:
    return files_below(folder / "artifacts" / "uploads")


async def test_a_picture_is_kept_cleaned_and_read_again(client: Client, tmp_path: Path) -> None:
    answer = await client.post(PATH, files={"file": ("../../x.svg", jpeg(comment=b"secret"), "text/html")})
    assert answer.status_code == 201
    told = answer.json()
    assert (told["media_type"], told["width"], told["height"]) == ("image/jpeg", 32, 16)
    (kept,) = stored(tmp_path)
    data = kept.read_bytes()
    assert b"secret" not in data
    assert (told["sha256"], told["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (await client.get(f"/api/v1/uploads/{told['upload_id']}")).json() == told


async def test_the_same_content_is_one_upload_of_one_owner(client: Client, tmp_path: Path) -> None:
    first, *others = [
        (await client.post(PATH, files={name: data})).json()["upload_id"]
        for name, data in (("file", png()), ("image", png()), ("file", png(pnginfo=None, optimize=False)))
    ]
    assert set(others) == {first}
    together = await asyncio.gather(*(client.post(PATH, files={"file": png(2)}) for _ in range(5)))
    assert len({answer.json()["upload_id"] for answer in together}) == 1
    assert len(stored(tmp_path)) == 2


async def test_a_deleted_upload_is_gone_with_its_file(client: Client, tmp_path: Path) -> None:
    upload = (await client.post(PATH, files={"file": png()})).json()["upload_id"]
    assert (await client.delete(f"/api/v1/uploads/{upload}")).status_code == 204
    assert stored(tmp_path) == []
    for method in ("GET", "DELETE"):
        assert code(await client.request(method, f"/api/v1/uploads/{upload}")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"files": {"file": b"x" * 100_001}}, (413, "PAYLOAD_TOO_LARGE")),
        ({"files": {"file": b"x" * 200_000}}, (413, "PAYLOAD_TOO_LARGE")),
        ({"files": {"file": b"<svg/>"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ({"files": {"file": b""}}, (422, "INVALID_INPUT")),
        ({"files": {"file": png()[:-20]}}, (422, "INVALID_INPUT")),
        ({"files": {"picture": png()}}, (422, "VALIDATION_ERROR")),
        ({"files": [("file", png()), ("image", png(2))]}, (422, "VALIDATION_ERROR")),
        ({"data": {"file": "text"}, "files": {"other": b"x"}}, (422, "VALIDATION_ERROR")),
        ({"json": {"file": "x"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ({"content": png(), "headers": {"Content-Type": "image/png"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (
            {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            (400, "BAD_REQUEST"),
        ),
        (
            {
                "content": b"--x\r\nA: b\r\n\r\n\r\n--x--",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            (400, "BAD_REQUEST"),
        ),
        ({"data": {"notes": "x"}, "files": {"file": png()}}, (422, "VALIDATION_ERROR")),
        (
            {
                "content": b"x" * 9000 + b"\r\n--x--",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            (413, "PAYLOAD_TOO_LARGE"),
        ),
    ],
)
async def test_what_is_refused_and_how(
    client: Client, tmp_path: Path, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert code(await client.post(PATH, **options)) == expected
    assert stored(tmp_path) == []


async def test_a_form_in_pieces_of_any_size_is_the_same_form(client: Client) -> None:
    boundary = "----abc"
    data = png(3, (64, 64))
    body = (
        b"preamble\r\n------abc  \r\ncontent-disposition: form-data; name=image; filename*=UTF-8''x.png\r\n"
        b"Content-Type: image/png\r\n\r\n" + data + b"\r\n------abc--\r\nepilogue"
    )
    ids = set()
    for step in (1, 7, 100, len(body)):

        async def pieces(step: int = step) -> AsyncIterator[bytes]:
            for at in range(0, len(body), step):
                yield body[at : at + step]

        answer = await client.post(
            PATH, content=pieces(), headers={"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
        )
        assert answer.status_code == 201, answer.text
        ids.add(answer.json()["sha256"])
    assert len(ids) == 1


async def test_a_full_disk_has_its_name(tmp_path: Path, sim: Simulator) -> None:
    async with running(tmp_path, sim.url) as service, connected(service.app) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))  # no file of this process may be larger
        try:
            answer = await client.post(PATH, files={"file": b"x" * (4 << 20)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert code(answer) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["Retry-After"]
        assert (await client.post(PATH, files={"file": png()})).status_code == 201


async def test_uploads_have_a_bucket_of_their_own(tmp_path: Path, sim: Simulator) -> None:
    async with running(tmp_path, sim.url, **AUTH) as service:
        someone = await person(service, password=None, tier="free")
        async with connected(service.app) as client:
            answers = [
                await client.post(PATH, files={"file": png(n % 3)}, headers=someone.headers)
                for n in range(21)
            ]
            assert [answer.status_code for answer in answers] == [201] * 20 + [429]
            assert code(answers[-1]) == (429, "RATE_LIMIT_EXCEEDED")
            assert (await client.get("/api/v1/jobs", headers=someone.headers)).status_code == 200
