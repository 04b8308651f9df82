"""Who calls, and by which scheme: what the connection says, or what a trusted proxy says of it.

The one place that reads `X-Forwarded-For` and `X-Forwarded-Proto`; anybody can send them, so nothing of them
counts unless the peer is one of `TRUSTED_PROXIES`. `X-Forwarded-Host` and `Forwarded` are never read.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from starlette.types import Scope

UNIX: Final = "unix"
"""The address of a peer that has none: one on a Unix socket."""
LONGEST: Final = 64
"""Characters of an address with its zone; what is longer is none, and is not remembered."""
_V4_PORT: Final = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")
_BRACKETS: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")
_SECURE: Final = frozenset({"https", "wss"})


class _Address(NamedTuple):
    """As numbers, which are compared in a tenth of the time that the library's objects take."""

    text: str
    """In its shortest form."""
    version: int
    number: int


class _Network(NamedTuple):
    version: int
    mask: int
    number: int


@dataclass(frozen=True, slots=True)
class Trusted:
    """Proxies whose word counts; false if there are none."""

    networks: tuple[_Network, ...] = ()
    unix: bool = False

    @classmethod
    def read(cls, entries: Iterable[str]) -> "Trusted":
        """From addresses, networks and `unix`. Raises `ValueError` that names every fault."""
        networks: list[_Network] = []
        faults: list[str] = []
        unix = False
        for entry in entries:
            if entry.lower() == UNIX:
                unix = True
                continue
            try:
                networks.append(_network(entry))
            except ValueError as fault:
                faults.append(f"{entry} {fault}")
        if faults:
            raise ValueError("; ".join(faults))
        return cls(tuple(networks), unix)

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)

    def holds(self, address: str) -> bool:
        """`address`: as `client_address` gives it."""
        if address == UNIX:
            return self.unix
        found = _parsed(address)
        if found is None:
            return False
        _, its, bits = found
        return any(version == its and bits & mask == number for version, mask, number in self.networks)


NOBODY: Final = Trusted()


def client_address(scope: Scope, trusted: Trusted) -> str:
    """The caller's address, or `unix`; in its shortest form, IPv4 also where it came mapped into IPv6.

    Of a trusted peer: the right-most of `X-Forwarded-For` that is no trusted proxy. The list is read from the
    right, where those that are trusted wrote; it ends at what is no address, and the last one read stands.
    """
    peer = _peer(scope)
    if not trusted or not trusted.holds(peer):
        return peer
    found = peer
    for entry in _forwarded(scope):
        address = _entry(entry)
        if address is None:
            break
        found = address
        if not trusted.holds(address):
            break
    return found


def scheme_of(scope: Scope, trusted: Trusted) -> str:
    """`http` or `https`, also of a WebSocket; a trusted peer may say by `X-Forwarded-Proto` which it was asked by.

    Of several the last counts: it is the nearest proxy's own.
    """
    if trusted and trusted.holds(_peer(scope)):
        said = _last(scope, b"x-forwarded-proto").rpartition(b",")[2].strip().lower()
        if said in (b"http", b"https"):
            return said.decode()
    return "https" if scope.get("scheme") in _SECURE else "http"


def bucket_of(address: str) -> str:
    """What limits by address count under: one address of IPv4, or the /64 of IPv6 that one caller has for its own."""
    found = _parsed(address)
    if found is None or found.version == 4:
        return address if found is None else found.text
    return str(ipaddress.IPv6Network((found.number >> 64 << 64, 64)))


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    if not client or not client[0]:
        return UNIX
    host = str(client[0])
    if ":" not in host:
        return host
    found = _parsed(host)
    return host if found is None else found.text


def _forwarded(scope: Scope) -> Iterator[str]:
    """The entries of all lines of `X-Forwarded-For`, right to left."""
    lines = [value for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    for line in reversed(lines):
        for entry in reversed(line.split(b",")):
            yield entry.decode("latin-1").strip(" \t")


def _last(scope: Scope, wanted: bytes) -> bytes:
    found = b""
    for name, value in scope.get("headers", ()):
        if name == wanted:
            found = value
    return found


def _entry(text: str) -> str | None:
    """The address of `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:80`; None for anything else."""
    match = _BRACKETS.fullmatch(text) or _V4_PORT.fullmatch(text)
    if "%" in text:  # a zone means nothing on another machine, and may be any text
        return None
    found = _parsed(text if match is None else match[1])
    return None if found is None else found.text


def _parsed(text: str) -> _Address | None:
    """IPv4 also where it is mapped into IPv6; a zone is left out. None for what is no address."""
    return _read(text) if len(text) <= LONGEST else None


@lru_cache(1024)  # proxies and callers come again, and reading takes ten times as long as all the rest
def _read(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    plain = (found.ipv4_mapped if found.version == 6 else None) or found
    return _Address(str(plain), plain.version, int(plain))


def _network(entry: str) -> _Network:
    try:
        found = ipaddress.ip_network(entry)
    except ValueError as fault:
        if "host bits" in str(fault):
            raise ValueError(
                f"is no network: it begins at {ipaddress.ip_network(entry, strict=False)}"
            ) from None
        raise ValueError("is no address, network or `unix`") from None
    if found.prefixlen == 0:
        raise ValueError("is everybody: then every caller names an address of its choice")
    if found.version == 6 and found.network_address.ipv4_mapped is not None:
        raise ValueError("is IPv4 in IPv6: write it as IPv4")
    return _Network(found.version, int(found.netmask), int(found.network_address))
