"""`REDIS_URL` as a value: what is accepted, and that no refusal quotes a secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.redis_link.address import Login, RedisAddress, Tls, parse

ACCEPTED = {
    "redis://cache": RedisAddress(hosts=(("cache", 6379),)),
    "redis://cache:7000/5": RedisAddress(hosts=(("cache", 7000),), db=5),
    "redis://cache?db=7": RedisAddress(hosts=(("cache", 6379),), db=7),
    "redis://:p%40ss%2Fword@[::1]:7000/": RedisAddress(hosts=(("::1", 7000),), login=Login(None, "p@ss/word")),
    "redis://api:p:w@10.0.0.1": RedisAddress(hosts=(("10.0.0.1", 6379),), login=Login("api", "p:w")),
    "rediss://cache": RedisAddress(hosts=(("cache", 6379),), tls=Tls()),
    "rediss://cache?ssl_cert_reqs=none": RedisAddress(hosts=(("cache", 6379),), tls=Tls(verify=False)),
    "unix:///run/valkey.sock": RedisAddress(path="/run/valkey.sock"),
    "unix://api:secret@/run/a%20b.sock?db=2": RedisAddress(
        path="/run/a b.sock", db=2, login=Login("api", "secret")
    ),
    "redis+sentinel://one/main": RedisAddress(hosts=(("one", 26379),), service="main"),
    "redis+sentinel://api:pw@one:1,[::2]:2,three/main/4": RedisAddress(
        hosts=(("one", 1), ("::2", 2), ("three", 26379)), service="main", db=4, login=Login("api", "pw")
    ),
    "rediss+sentinel://one/main?sentinel_username=u&sentinel_password=p%26q": RedisAddress(
        hosts=(("one", 26379),), service="main", sentinel_login=Login("u", "p&q"), tls=Tls()
    ),
}  # fmt: skip
REFUSED = [
    "",
    "localhost:6379",
    "http://secret@host",
    "redis:secret",
    "redis://",
    "redis:///0",
    "redis://user:secret@",
    "redis://secret@host:0",
    "redis://host:70000",
    "redis://host:port",
    "redis://ho st",
    "redis://host/x",
    "redis://host/-1",
    "redis://host/0/1",
    "redis://host/99999",
    "redis://host/²",
    "redis://host#secret",
    "redis://one,two",
    "redis://host?timeout=secret",
    "redis://host?ssl_cert_reqs=none",
    "rediss://host?ssl_cert_reqs=optional",
    "rediss://host?ssl_ca_certs=/no/such/secret",
    "redis://[::1",
    "unix://",
    "unix://host/secret",
    "unix:///run/x?db=x",
    "redis+sentinel://one,two",
    "redis+sentinel://one,,two/main",
    "redis+sentinel:///main",
    "redis+sentinel://one/main/0/secret",
    "redis+sentinel://one/main/x",
]


@pytest.mark.parametrize("url", ACCEPTED)
def test_what_is_accepted(url: str) -> None:
    assert parse(url) == ACCEPTED[url]


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_refused_with_a_message_that_may_be_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_files_of_certificates_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    assert parse(f"rediss://host?ssl_ca_certs={tmp_path}/ca.pem").tls == Tls(ca=f"{tmp_path}/ca.pem")


def test_a_password_is_not_in_what_is_printed() -> None:
    for url in ("redis://u:canary@host", "redis+sentinel://one/main?sentinel_password=canary"):
        assert "canary" not in repr(parse(url))


@given(st.text())
def test_any_text_is_accepted_or_refused(text: str) -> None:
    for prefix in ("", "redis://", "rediss+sentinel://", "unix://"):
        try:
            parse(prefix + text)
        except ValueError as refused:
            assert len(str(refused)) < 200  # noqa: PT017 - either way is right
