import time
from urllib.parse import parse_qsl, urlsplit

import pytest

from comfy_api_service.domain.errors import Code, Refused
from comfy_api_service.storage.links import Grant, LinkSigner, disposition

KEY = "jobs/job_1/1/image_0.png"
SIGNER = LinkSigner(b"secret", "https://api.example/base/")


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query, keep_blank_values=True))


def made(signer: LinkSigner = SIGNER) -> dict[str, str]:
    return query_of(signer.link(KEY, expires_at=999.2, media_type="image/png", filename="a b.png"))


def test_a_link_says_what_it_grants() -> None:
    link = SIGNER.link(KEY, expires_at=999.2, media_type="image/png", filename="a b.png")
    assert link.startswith(
        f"https://api.example/base/artifacts/{KEY}?expires=1000&type=image/png&name=a%20b.png&"
    )
    assert SIGNER.verify(KEY, query_of(link), 999.9) == Grant(KEY, "image/png", "a b.png", 1000.0)
    assert (
        LinkSigner(b"s", "").link("a", expires_at=1, media_type="", filename="").startswith("/artifacts/a?")
    )


def test_an_expired_link_says_what_to_do() -> None:
    with pytest.raises(Refused, match="read the job again") as caught:
        SIGNER.verify(KEY, made(), 1000.0)
    assert caught.value.code is Code.FORBIDDEN


@pytest.mark.parametrize("name", ["expires", "type", "name", "signature"])
@pytest.mark.parametrize("change", ["", "x", "1001", "image/svg+xml", "1000 ", "١٠٠٠", "\ud800", None])
def test_any_other_word_of_the_link_is_refused(name: str, change: str | None) -> None:
    query = made()
    if change is None:
        del query[name]
    else:
        query[name] = change
    with pytest.raises(Refused, match="signature") as caught:
        SIGNER.verify(KEY, query, 0)
    assert caught.value.code is Code.FORBIDDEN


@pytest.mark.parametrize(
    "key", ["", "jobs/job_1/1/image_1.png", "../x", f"{KEY}?expires=1", "\ud800", KEY + "\n"]
)
def test_any_other_key_is_refused(key: str) -> None:
    with pytest.raises(Refused, match="signature"):
        SIGNER.verify(key, made(), 0)


def test_another_secret_is_refused() -> None:
    with pytest.raises(Refused, match="signature"):
        SIGNER.verify(KEY, made(LinkSigner(b"other", "")), 0)


def test_words_cannot_slide_from_one_part_into_another() -> None:
    one = SIGNER.link("a", expires_at=1, media_type="x&name=y", filename="z")
    other = SIGNER.link("a", expires_at=1, media_type="x", filename="y&name=z")
    assert query_of(one)["signature"] != query_of(other)["signature"]
    assert SIGNER.verify("a", query_of(one), 0).media_type == "x&name=y"


def test_a_secret_is_needed() -> None:
    with pytest.raises(ValueError, match="secret"):
        LinkSigner(b"", "")


def test_signing_takes_microseconds() -> None:

    begin = time.perf_counter()
    for _ in range(1000):
        SIGNER.link(KEY, expires_at=1e9, media_type="image/png", filename="image_0.png")
    assert time.perf_counter() - begin < 0.1


@pytest.mark.parametrize(
    ("media_type", "filename", "header"),
    [
        ("image/png", "a.png", "inline; filename=\"a.png\"; filename*=UTF-8''a.png"),
        ("image/svg+xml", "a.svg", "attachment; filename=\"a.svg\"; filename*=UTF-8''a.svg"),
        ("text/plain; charset=utf-8", "a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
        (
            "video/mp4",
            'ü"\r\nX: y',
            "inline; filename=\"____X_ y\"; filename*=UTF-8''%C3%BC%22%0D%0AX%3A%20y",
        ),
        ("application/octet-stream", "", "attachment; filename=\"file\"; filename*=UTF-8''"),
    ],
)
def test_a_file_name_cannot_leave_its_header(media_type: str, filename: str, header: str) -> None:
    assert disposition(media_type, filename) == header
