"""Which names a request may be addressed to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.api.host_names import ANY_NAME, HostNames

NAMES = HostNames.read(["api.example.com", "*.studio.example", "10.0.0.5", "[2001:db8::1]", "localhost"])


def scope(*hosts: bytes) -> Any:
    return {"headers": [(b"accept", b"*/*"), *((b"host", host) for host in hosts)]}


@pytest.mark.parametrize(
    "host",
    [
        b"api.example.com",
        b"API.Example.com:8443",
        b"api.example.com.",
        b"a.studio.example",
        b"a.b.studio.example:80",
        b"10.0.0.5:8000",
        b"[2001:db8::1]",
        b"[2001:DB8:0::1]:8000",
        b"localhost:8000",
    ],
)
def test_allowed(host: bytes) -> None:
    assert NAMES.allow(scope(host))


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"",),
        (b"example.com",),
        (b"evil.example",),
        (b"xapi.example.com",),
        (b"api.example.com.evil.example",),
        (b"api.example.com:80:80",),
        (b"api.example.com@evil.example",),
        (b"evil.example/.studio.example",),
        (b"evil.example#.studio.example",),
        (b"studio.example",),
        (b".studio.example",),
        (b"xstudio.example",),
        (b"10.0.0.50",),
        (b"[2001:db8::2]",),
        (b"2001:db8::1",),
        (b"api.example.com", b"evil.example"),
        (b"api.example.com", b"api.example.com"),
        (b"api.ex\xc3\xa4mple.com",),
    ],
)
def test_refused(hosts: tuple[bytes, ...]) -> None:
    assert not NAMES.allow(scope(*hosts))


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_whatever_is_sent(hosts: list[bytes]) -> None:
    NAMES.allow(scope(*hosts))


def test_every_fault_of_the_list_is_named() -> None:
    with pytest.raises(ValueError, match="leave the setting out") as told:
        HostNames.read(
            ["api.example.com", "*", "a.example:80", "https://a.example", "a.*.example", "[::1]:80"]
        )
    faults = [fault.split(" ")[0] for fault in str(told.value).split("; ")]
    assert faults == ["*", "a.example:80", "https://a.example", "a.*.example", "[::1]:80"]
    assert NAMES
    assert not ANY_NAME
