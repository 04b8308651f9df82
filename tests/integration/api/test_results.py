"""Results as bytes: whole, in parts, unchanged, small, in other formats."""

import hashlib
import io
import json

import pytest
from PIL import Image
from tests.support.api import SMALL, Client

from comfy_api_service.bootstrap.api import Service

pytestmark = pytest.mark.sqlite

GENERATE = "/api/v1/generate"


@pytest.fixture
async def job_id(client: Client) -> str:
    found: str = (await client.post(GENERATE, json={**SMALL, "num_images": 2})).json()["job_id"]
    return found


@pytest.fixture(params=["link", "image", "result"])
async def path(request: pytest.FixtureRequest, client: Client, job_id: str) -> str:
    if request.param != "link":
        return f"/api/v1/jobs/{job_id}/{request.param}"
    found: str = (await client.get(f"{GENERATE}/{job_id}")).json()["image_url"]
    return found


async def test_whole_in_parts_and_unchanged(client: Client, path: str, job_id: str) -> None:
    whole = await client.get(path)
    headers = whole.headers
    size = len(whole.content)
    listed = (await client.get(f"/api/v1/jobs/{job_id}")).json()["result"]["artifacts"][0]
    assert listed["sha256"] == hashlib.sha256(whole.content).hexdigest()
    assert (headers["content-type"], int(headers["content-length"])) == ("image/png", size)
    assert headers["content-disposition"].startswith('inline; filename="image_0.png"')
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"].startswith("private")
    assert headers["accept-ranges"] == "bytes"

    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(size)

    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
        ("bytes=0-999999999", 0, size),
        (f"bytes=-{size + 10}", 0, size),
        ("Bytes = 1-1", 1, 2),
    ):
        part = await client.get(path, headers={"Range": asked})
        assert part.status_code == 206, asked
        assert part.content == whole.content[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for asked in (f"bytes={size}-", "bytes=-0"):
        outside = await client.get(path, headers={"Range": asked})
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
        assert outside.json()["error"]["details"] == {"size": size}
    for asked in ("bytes=9-3", "bytes=-", "lines=0-1", "bytes=0-1,3-4", "bytes=x-y"):
        assert (await client.get(path, headers={"Range": asked})).status_code == 200, asked

    etag = headers["etag"]
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = await client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    stale = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert stale.status_code == 200
    fresh = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})
    assert fresh.status_code == 206


async def test_a_link_that_was_altered_or_is_nobodys(client: Client, job_id: str) -> None:
    link = (await client.get(f"{GENERATE}/{job_id}")).json()["image_url"]
    for bad in (
        link[:-1],
        link.replace("image_0", "image_1"),
        link.replace("expires=", "expires=9"),
        link.replace("type=image/png", "type=text/html"),
        link.partition("?")[0],
        "/artifacts/../../etc/passwd",
        "/artifacts/%00",
        "/artifacts/" + "x" * 2000,
    ):
        answer = await client.get(bad)
        assert answer.status_code in (403, 404), bad
        assert answer.json()["error"]["code"] in ("FORBIDDEN", "NOT_FOUND")


async def test_other_pictures_formats_and_sizes(client: Client, job_id: str) -> None:
    path = f"/api/v1/jobs/{job_id}/image"
    first = await client.get(path)
    second = await client.get(path, params={"index": 1})
    assert first.content != second.content
    assert (await client.get(path, params={"index": 2})).status_code == 404
    small = await client.get(path, params={"size": 32})
    assert (small.headers["content-type"], small.content[8:12]) == ("image/webp", b"WEBP")
    jpeg = await client.get(path, headers={"Accept": "image/webp;q=0.1, image/jpeg"})
    assert (jpeg.headers["content-type"], jpeg.content[:2]) == ("image/jpeg", b"\xff\xd8")
    assert jpeg.headers["vary"] == "Accept"
    browser = await client.get(path, headers={"Accept": "image/avif,image/webp,*/*;q=0.8"})
    assert browser.headers["content-type"] == "image/png"
    none = await client.get(path, headers={"Accept": "text/html"})
    assert (none.status_code, none.json()["error"]["code"]) == (406, "NOT_ACCEPTABLE")
    available = none.json()["error"]["details"]["available"]
    assert available == ["image/png", "image/jpeg", "image/webp"]
    for one in available:
        assert (await client.get(path, headers={"Accept": one})).headers["content-type"] == one
    for query in ({"size": 15}, {"size": 1025}, {"index": -1}, {"redirect": "yes"}):
        assert (await client.get(path, params=query)).status_code == 422


async def test_redirect_to_the_storage(client: Client, job_id: str) -> None:
    answer = await client.get(f"/api/v1/jobs/{job_id}/image", params={"redirect": "true"})
    assert answer.status_code == 307
    assert (await client.get(answer.headers["location"])).content.startswith(b"\x89PNG")


async def test_a_file_that_is_lost_is_an_error_not_a_broken_stream(
    client: Client, service: Service, job_id: str
) -> None:
    job = (await client.get(f"/api/v1/jobs/{job_id}")).json()
    key = job["result"]["artifacts"][0]["url"].partition("/artifacts/")[2].partition("?")[0]
    await service.services.results._storage.delete([key])
    answer = await client.get(f"/api/v1/jobs/{job_id}/image")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")


async def test_pictures_of_one_batch_say_their_place_beside_the_seed_they_share(client: Client) -> None:
    """ComfyUI draws one noise for the whole batch: a seed without the place in it would be half the truth."""
    asked = {**SMALL, "seed": 5, "num_images": 2, "output": {"metadata": "embed"}}
    images = (await client.post(GENERATE, json=asked)).json()["images"]
    assert [image["seed"] for image in images] == [5, 5]
    assert [image["meta"] for image in images] == [{"batch_index": n, "batch_size": 2} for n in (0, 1)]
    for number, image in enumerate(images):
        picture = Image.open(io.BytesIO((await client.get(image["url"])).content))
        assert picture.info["seed"] == "5"
        assert json.loads(picture.info["parameters"])["batch_index"] == number


async def test_a_picture_alone_has_no_place_in_a_batch(client: Client) -> None:
    (image,) = (await client.post(GENERATE, json=SMALL)).json()["images"]
    assert image["meta"] == {}
