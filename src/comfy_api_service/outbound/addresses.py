"""Which addresses are public, and which URLs may be asked for at all. Pure: nothing is looked up here.

FetchError                    what was asked for did not come; the text names no address
├── AddressRefused            it may not be asked for
├── FetchTooLarge             it is larger than is accepted
└── FetchTimeout              it did not come in time
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from yarl import URL

Address = IPv4Address | IPv6Address

LONGEST: Final = 2048
"""Characters of a URL."""
_WRITABLE: Final = re.compile(r"[^\x00-\x20\x7f-\xa0\\\"<>^`{|}]+")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*{_LABEL}")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""The last label of what some resolvers take for an IPv4 address in another spelling."""
_INSIDE: Final = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "arpa",
)
"""Last labels of names that are nobody's on the Internet."""
_SPECIAL_4: Final = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carriers' own
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.175.48.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "100.100.100.200/32",
    )
)
_GLOBAL_6: Final = IPv6Network("2000::/3")
"""All that is given out; the rest is special or not in use."""
_SPECIAL_6: Final = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # protocols, Teredo and benchmarks among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",
        "fd00:ec2::254/128",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """What was asked for did not come. The text is safe to show."""


class AddressRefused(FetchError):
    """This may not be asked for."""


class FetchTooLarge(FetchError):
    """It is larger than is accepted."""


class FetchTimeout(FetchError):
    """It did not come in time."""


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet could ask for it. An IPv6 address that stands for an IPv4 one: never."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _SPECIAL_4)
    if address.scope_id is not None or address.ipv4_mapped is not None:
        return False
    if address in _NAT64 or address not in _GLOBAL_6:
        return False
    if address.packed[8:12] in {
        b"\x00\x00\x5e\xfe",
        b"\x02\x00\x5e\xfe",
    }:  # ISATAP: an IPv4 address in disguise
        return False
    return not any(address in net for net in _SPECIAL_6)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, once what its host's name resolves to was checked too."""

    url: URL
    host: str
    address: Address | None
    """If the host is one already."""


def target(text: str, *, allow_private: bool = False, base: URL | None = None) -> Target:
    """The URL, read as it will be asked for; `base`: of the answer that redirects to it.

    https on port 443, to public addresses; `allow_private` allows http, other ports and addresses inside. Raises
    `AddressRefused`.
    """
    if len(text) > LONGEST or not _WRITABLE.fullmatch(text):
        raise AddressRefused("The URL is not well-formed.")
    try:
        url = URL(text) if base is None else base.join(URL(text))
        host, port = url.raw_host, url.port
        named = "@" in urlsplit(text).netloc
    except ValueError:
        raise AddressRefused("The URL is not well-formed.") from None
    if url.scheme not in ({"https", "http"} if allow_private else {"https"}):
        raise AddressRefused("Only https URLs are asked.")
    if named or url.raw_user is not None or url.raw_password is not None:
        raise AddressRefused("A URL with a user name in it is not asked.")
    if port is None or not (allow_private or port == 443):
        raise AddressRefused("Only port 443 is asked.")
    if not host:
        raise AddressRefused("The URL names no host.")
    address = _literal(host)
    if address is None and not allow_private:
        _check_name(host)
    if address is not None and not (allow_private or is_public(address)):
        raise AddressRefused("This address is not allowed.")
    return Target(url.with_fragment(None), host, address)


def _literal(host: str) -> Address | None:
    """The address that the host is written as; other spellings than the usual one are none."""
    try:
        return ip_address(host)
    except ValueError:
        if ":" in host or "%" in host:
            raise AddressRefused("The URL is not well-formed.") from None
    return None


def _check_name(host: str) -> None:
    labels = host.split(".")
    if not _NAME.fullmatch(host) or len(labels) < 2 or _NUMBER.fullmatch(labels[-1]):
        raise AddressRefused("The URL's host is not a public name.")
    if labels[-1] in _INSIDE:
        raise AddressRefused("The URL's host is not a public name.")
