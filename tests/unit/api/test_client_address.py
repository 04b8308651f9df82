"""Whose address counts: nobody names one for itself, and whatever is sent is read without an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.api.client_address import (
    NOBODY,
    UNIX,
    Trusted,
    bucket_of,
    client_address,
    scheme_of,
)

PROXIES = Trusted.read(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])
SOCKET = Trusted.read(["unix"])


def scope(peer: str | None, *forwarded: str, scheme: str = "http", proto: tuple[str, ...] = ()) -> Any:
    """`forwarded`, `proto`: the header lines."""
    headers = [(b"host", b"service.test")]
    headers += [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    headers += [(b"x-forwarded-proto", line.encode("latin-1")) for line in proto]
    client = None if peer is None else (peer, 40_000)
    return {"type": "http", "scheme": scheme, "client": client, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "lines", "found"),
    [
        # nobody in front
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("1.1.1.1",), "203.0.113.9"),
        ("192.0.2.8", ("1.1.1.1",), "192.0.2.8"),
        # one proxy, several, one that is not trusted between
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("192.0.2.7", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9,192.0.2.7 ,\t10.0.0.2 ",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, 192.0.2.8, 10.0.0.2",), "192.0.2.8"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        # what the caller sent stands to the left of what the proxy saw
        ("10.0.0.1", ("1.1.1.1, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("10.0.0.9, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1", "203.0.113.9"), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9", "10.0.0.2"), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, 1.1.1.1", "10.0.0.2"), "1.1.1.1"),
        # what is no address ends the list, and the last one that was read stands
        ("10.0.0.1", ("unknown",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9, , 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("203.0.113.9,",), "10.0.0.1"),
        ("10.0.0.1", ("", "10.0.0.2"), "10.0.0.2"),
        ("10.0.0.1", ("203.0.113.9, _hidden, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("999.1.1.1",), "10.0.0.1"),
        ("10.0.0.1", ("01.1.1.1",), "10.0.0.1"),
        ("10.0.0.1", ("1.1.1",), "10.0.0.1"),
        ("10.0.0.1", ("3405803785",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9:x",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9:123456",), "10.0.0.1"),
        ("10.0.0.1", ("[2001:db8::1",), "10.0.0.1"),
        ("10.0.0.1", ("[2001:db8::1]:",), "10.0.0.1"),
        ("10.0.0.1", ("[203.0.113.9]x",), "10.0.0.1"),
        ("10.0.0.1", ("fe80::1%eth0",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9%\r\nx",), "10.0.0.1"),
        ("10.0.0.1", ("for=203.0.113.9",), "10.0.0.1"),
        ("10.0.0.1", ("\xb2\xb0\xb3.0.113.9",), "10.0.0.1"),
        # ports, brackets, one address in several forms
        ("10.0.0.1", ("203.0.113.9:5",), "203.0.113.9"),
        ("10.0.0.1", ("2001:DB8:0::1",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]:443",), "2001:db8::1"),
        ("10.0.0.1", ("203.0.113.9, [fd00::2]:443",), "203.0.113.9"),
        ("10.0.0.1", ("::ffff:203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9, ::ffff:10.0.0.2",), "203.0.113.9"),
        ("::ffff:10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("::ffff:203.0.113.9", ("1.1.1.1",), "203.0.113.9"),
        ("fd00::1", ("203.0.113.9",), "203.0.113.9"),
        ("fe80::1%eth0", ("203.0.113.9",), "fe80::1"),
        # a socket that has no address
        (None, ("203.0.113.9",), UNIX),
        ("", ("203.0.113.9",), UNIX),
        ("testclient", ("203.0.113.9",), "testclient"),
        ("10.0.0.1", ("203.0.113.9, unix",), "10.0.0.1"),
    ],
)
def test_the_address(peer: str | None, lines: tuple[str, ...], found: str) -> None:
    assert client_address(scope(peer, *lines), PROXIES) == found


def test_a_socket_is_believed_if_it_is_named() -> None:
    assert client_address(scope(None, "1.1.1.1, 203.0.113.9"), SOCKET) == "203.0.113.9"
    assert client_address(scope(None), SOCKET) == UNIX
    assert client_address(scope("127.0.0.1", "203.0.113.9"), SOCKET) == "127.0.0.1"
    assert scheme_of(scope(None, proto=("https",)), SOCKET) == "https"
    assert client_address(scope(None, "1.1.1.1"), NOBODY) == UNIX


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.0.0.1", None])
def test_nobody_is_believed_by_itself(peer: str | None) -> None:
    assert client_address(scope(peer, "1.1.1.1"), NOBODY) == (peer or UNIX)
    assert scheme_of(scope(peer, proto=("https",)), NOBODY) == "http"


@pytest.mark.parametrize(
    ("peer", "own", "said", "found"),
    [
        ("10.0.0.1", "http", ("https",), "https"),
        ("10.0.0.1", "https", ("http",), "http"),
        ("10.0.0.1", "ws", ("HTTPS ",), "https"),
        ("10.0.0.1", "wss", (), "https"),
        ("10.0.0.1", "ws", (), "http"),
        ("10.0.0.1", "http", ("http, https",), "https"),
        ("10.0.0.1", "http", ("https, http",), "http"),
        ("10.0.0.1", "http", ("https", "http"), "http"),
        ("10.0.0.1", "http", ("wss",), "http"),
        ("10.0.0.1", "http", ("javascript",), "http"),
        ("10.0.0.1", "https", ("",), "https"),
        ("203.0.113.9", "http", ("https",), "http"),
        ("203.0.113.9", "https", ("http",), "https"),
        ("203.0.113.9", "wss", ("http",), "https"),
    ],
)
def test_the_scheme(peer: str, own: str, said: tuple[str, ...], found: str) -> None:
    assert scheme_of(scope(peer, scheme=own, proto=said), PROXIES) == found


ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(
        ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "unix", "unknown", "", "[", "]:", "%", "1.2.3.4:5"]
    ),
    st.text(alphabet=st.characters(max_codepoint=255), max_size=40),
)


@given(
    peer=st.one_of(st.none(), ADDRESSES, st.text(max_size=20)),
    lines=st.lists(st.lists(ADDRESSES, max_size=6).map(",".join), max_size=4),
    proto=st.lists(st.text(alphabet=st.characters(max_codepoint=255), max_size=20), max_size=3),
)
def test_whatever_is_sent(peer: str | None, lines: list[str], proto: list[str]) -> None:
    asked = scope(peer, *lines, proto=tuple(proto))
    for trusted in (NOBODY, SOCKET, PROXIES):
        found = client_address(asked, trusted)
        assert scheme_of(asked, trusted) in ("http", "https")
        assert bucket_of(bucket_of(found)) == bucket_of(found)
        if not trusted.holds(client_address(scope(peer), NOBODY)):
            assert found == client_address(scope(peer), NOBODY)


@given(
    forged=st.lists(ADDRESSES, max_size=6),
    real=st.ip_addresses(v=4).filter(lambda ip: ip.packed[0] not in (10, 192)),
)
def test_a_forged_list_changes_nothing(forged: list[str], real: Any) -> None:
    """What a caller sends stands to the left of what the proxy adds."""
    line = ",".join([*forged, f" {real}"])
    assert client_address(scope("10.0.0.1", line), PROXIES) == str(real)


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        (UNIX, UNIX),
        ("testclient", "testclient"),
    ],
)
def test_what_is_counted_together(address: str, bucket: str) -> None:
    assert bucket_of(address) == bucket


def test_every_fault_of_the_list_is_named() -> None:
    with pytest.raises(ValueError, match="no address, network") as told:
        Trusted.read(["10.0.0.1", "proxy.example", "10.0.0.1/8", "0.0.0.0/0", "::/0", "*", "::ffff:10.0.0.1"])
    named = str(told.value).split("; ")
    assert [fault.split(" ")[0] for fault in named] == [
        "proxy.example",
        "10.0.0.1/8",
        "0.0.0.0/0",
        "::/0",
        "*",
        "::ffff:10.0.0.1",
    ]
    assert "10.0.0.0/8" in named[1]
    assert Trusted.read(["UNIX"]).unix
    assert not NOBODY
