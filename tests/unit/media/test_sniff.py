import pytest
from tests.unit.media import samples

from comfy_api_service.media.sniff import HEAD, belies, sniff

EXPECTED = {
    "png": ("image", "image/png", "png"),
    "jpeg": ("image", "image/jpeg", "jpg"),
    "progressive jpeg": ("image", "image/jpeg", "jpg"),
    "webp": ("image", "image/webp", "webp"),
    "lossless webp": ("image", "image/webp", "webp"),
    "animated webp": ("animation", "image/webp", "webp"),
    "animated gif": ("animation", "image/gif", "gif"),
    "mp4": ("video", "video/mp4", "mp4"),
    "webm": ("video", "video/webm", "webm"),
    "live webm": ("video", "video/webm", "webm"),
    "flac": ("audio", "audio/flac", "flac"),
    "mp3": ("audio", "audio/mpeg", "mp3"),
    "wav": ("audio", "audio/wav", "wav"),
    "opus": ("audio", "audio/ogg", "opus"),
    "vorbis": ("audio", "audio/ogg", "ogg"),
}


def test_every_sample_has_its_line_here() -> None:
    """But for two, which only their cleaners can tell from animations or stills."""
    assert samples.ALL.keys() - EXPECTED.keys() == {"apng", "gif"}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_is_known_by_its_content(name: str) -> None:
    kind = sniff(samples.ALL[name]()[:HEAD])
    assert (kind.kind, kind.media_type, kind.extension) == EXPECTED[name]


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (samples.mp3(tagged=False), "audio/mpeg"),
        (samples.mp4(b"qt  "), "video/quicktime"),
        (samples.mp4(b"M4A "), "audio/mp4"),
        (samples.mp4(b"iso6"), "video/mp4"),
        (samples.mp4(b"avif"), "application/octet-stream"),
        (samples.webm(b"matroska"), "video/x-matroska"),
        ("naïve text\nof two lines\t✓".encode(), "text/plain; charset=utf-8"),
        (b'{"a": [1, 2, 3]}', "text/plain; charset=utf-8"),
        ("é".encode() * 4000, "text/plain; charset=utf-8"),
        (b"x" + "é".encode() * 4000, "text/plain; charset=utf-8"),
        (b"", "application/octet-stream"),
        (b"text with a \0 in it", "application/octet-stream"),
        (b"caf\xe9 in latin-1", "application/octet-stream"),
        (b"cut \xc3", "application/octet-stream"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "application/octet-stream"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><p>", "application/octet-stream"),
        (b"<?xml version='1.0'?><svg/>", "application/octet-stream"),
        (b"hello <script>alert(1)</script>", "application/octet-stream"),
        (b"hello <SVG onload=alert(1)>", "application/octet-stream"),
        (b"<anything/>", "application/octet-stream"),
        (b"PK\x03\x04zip", "application/octet-stream"),
        (b"\xff\xff\xff\xff", "application/octet-stream"),
        (b"RIFF\0\0\0\0AVI LIST", "application/octet-stream"),
    ],
)
def test_what_a_browser_might_run_is_never_more_than_a_file(head: bytes, media_type: str) -> None:
    assert sniff(head[:HEAD]).media_type == media_type


def test_every_beginning_of_every_file_has_some_kind() -> None:
    for make in samples.ALL.values():
        data = make()
        for length in range(min(len(data), 200)):
            sniff(data[:length])


@pytest.mark.parametrize(
    ("name", "kind", "lies"),
    [
        ("a.png", "image", False),
        ("a.PNG", "animation", False),
        ("a.png", "file", True),
        ("a.jpg", "text", True),
        ("a.gif", "video", True),
        ("a.mp4", "video", False),
        ("a.webm", "audio", False),
        ("a.mp4", "file", True),
        ("a.flac", "text", True),
        ("a.svg", "file", False),
        ("a.glb", "file", False),
        ("a", "text", False),
        ("png", "image", False),
        ("a.html.png", "file", True),
    ],
)
def test_what_a_name_promises(name: str, kind: str, *, lies: bool) -> None:
    assert belies(name, kind) is lies
