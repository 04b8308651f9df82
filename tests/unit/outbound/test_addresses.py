"""Which URLs may be fetched: every spelling of `tests/data/addresses.jsonl`, to which anybody may add a line."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
from yarl import URL

from comfy_api_service.outbound.addresses import AddressRefused, is_public, target

LINES: Final[list[dict[str, Any]]] = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "addresses.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['class']} {line['url'][:60]!a}")
def test_a_spelling(line: dict[str, Any]) -> None:
    if line["allowed"]:
        target(line["url"])
        return
    with pytest.raises(AddressRefused) as refused:
        target(line["url"])
    assert not {"127", "169", "example", "local"} & set(str(refused.value).replace(".", " ").split())


def test_there_are_enough_of_them() -> None:
    refused = [line for line in LINES if not line["allowed"]]
    assert len(refused) >= 60
    assert len({line["class"] for line in refused}) >= 6
    assert len(LINES) - len(refused) >= 15
    assert len({line["url"] for line in LINES}) == len(LINES)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/b.png", "https://example.com/b.png"),
        ("b.png", "https://example.com/a/b.png"),
        ("//other.example/x", "https://other.example/x"),
        ("https://1.1.1.1/x", "https://1.1.1.1/x"),
    ],
)
def test_a_redirect_is_read_from_where_it_was_given(place: str, expected: str) -> None:
    assert str(target(place, base=URL("https://example.com/a/a.png")).url) == expected


@pytest.mark.parametrize(
    "place", ["http://example.com/", "//127.0.0.1/", "//x@example.com", "https://[::1]/", ""]
)
def test_a_redirect_is_checked_as_if_it_had_been_given(place: str) -> None:
    with pytest.raises(AddressRefused):
        target(place, base=URL("https://example.com/a/a.png"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a.png", "https://localhost/", "http://store:9000/x"])
def test_closed_networks_may_allow_what_lies_inside(url: str) -> None:
    target(url, allow_private=True)
    with pytest.raises(AddressRefused):
        target(url)
    for never in ("ftp://127.0.0.1/", "http://u@store/", "file:///etc/passwd"):
        with pytest.raises(AddressRefused):
            target(never, allow_private=True)


def test_an_address_with_a_zone_is_nobodys_elsewhere() -> None:
    assert is_public(ip_address("2606:4700:4700::1111"))
    assert not is_public(ip_address("2606:4700:4700::1111%eth0"))
