"""Where Redis or Valkey is: `REDIS_URL` as a value. No message of a fault quotes the URL or its password.

    redis://[[user]:password@]host[:6379][/db]       rediss:// for TLS
    unix://[[user]:password@]/path/of/the/socket[?db=0]
    redis+sentinel://[[user]:password@]host[:26379],host…/service[/db]       rediss+sentinel:// for TLS

`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (files) and `ssl_cert_reqs` (`required` or `none`) may follow for
TLS, `sentinel_username` and `sentinel_password` for sentinels that ask for them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
MOST_DATABASES: Final = 16_384
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = frozenset({*_TLS_FILES, "ssl_cert_reqs"})
_SENTINEL: Final = frozenset({"sentinel_username", "sentinel_password"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/?#@,\s]+))(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of certificates; without `ca` the system's authorities are trusted."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`hosts` are the server, or the sentinels that know the server of `service`; empty with a socket's `path`."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: Tls | None = None


def parse(url: str) -> RedisAddress:
    """Raises `ValueError`, with a message that may be shown, for anything that is not as above."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("this is not a URL") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the URL must begin with one of {', '.join(f'{one}://' for one in SCHEMES)}")
    if parts.fragment:
        raise ValueError("the URL has no part after #; write # in a password as %23")
    options = _options(parts)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    login = Login(unquote(username) or None, unquote(password) or None)
    if parts.scheme == "unix":
        return _socket(parts, hosts, login, options)
    sentinel = parts.scheme.endswith("+sentinel")
    service, db = _path(parts.path, sentinel=sentinel)
    return RedisAddress(
        hosts=_hosts(hosts, default_port=26379 if sentinel else 6379, several=sentinel),
        service=service,
        db=_number(options.get("db", db)),
        login=login,
        sentinel_login=Login(options.get("sentinel_username"), options.get("sentinel_password")),
        tls=_tls(options) if parts.scheme.startswith("rediss") else None,
    )


def _options(parts: SplitResult) -> Mapping[str, str]:
    allowed = {"db"}
    if parts.scheme.startswith("rediss"):
        allowed |= _TLS
    if parts.scheme.endswith("+sentinel"):
        allowed |= _SENTINEL
    given = parse_qsl(parts.query, keep_blank_values=True)
    unknown = sorted({name for name, _ in given} - allowed)
    if unknown:
        raise ValueError(f"after ? only {', '.join(sorted(allowed))} may stand in a {parts.scheme}:// URL")
    return dict(given)


def _socket(parts: SplitResult, host: str, login: Login, options: Mapping[str, str]) -> RedisAddress:
    path = unquote(parts.path)
    if host or len(path) < 2:
        raise ValueError("a unix:// URL names the path of a socket, with three slashes")
    return RedisAddress(path=path, db=_number(options.get("db", "0")), login=login)


def _hosts(text: str, *, default_port: int, several: bool) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in text.split(",") if several else [text]:
        found = _HOST.fullmatch(one)
        port = int(found.group(3) or default_port) if found else 0
        if found is None or not 0 < port < 65_536:
            wanted = "hosts, comma-separated, each" if several else "a host"
            raise ValueError(f"{wanted} with or without a port belongs before the path")
        hosts.append((found.group(1) or found.group(2), port))
    return tuple(hosts)


def _path(path: str, *, sentinel: bool) -> tuple[str | None, str]:
    """The name of the service, with sentinels, and the number of the database."""
    names = [unquote(name) for name in path.split("/") if name]
    if len(names) > 1 + sentinel:
        raise ValueError("the path has too many parts")
    if not sentinel:
        return None, names[0] if names else "0"
    if not names:
        raise ValueError("a sentinel URL names the service after the hosts: …/mymaster")
    return names[0], names[1] if len(names) > 1 else "0"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) >= MOST_DATABASES:
        raise ValueError("the database is a small number")
    return int(text)


def _tls(options: Mapping[str, str]) -> Tls:
    verify = options.get("ssl_cert_reqs", "required")
    if verify not in {"required", "none"}:
        raise ValueError("ssl_cert_reqs is required or none")
    for name in _TLS_FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"{name} names no file")
    return Tls(
        ca=options.get("ssl_ca_certs"),
        certificate=options.get("ssl_certfile"),
        key=options.get("ssl_keyfile"),
        verify=verify == "required",
    )
