"""Host names: how a Host header is read, and which names this service may be asked by (`ALLOWED_HOSTS`)."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

HOST: Final = re.compile(r"([A-Za-z0-9._\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""A Host header; its first group is the name or the address, without the port."""
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class HostNames:
    """Names as they are compared; false if there are none, which allows all."""

    exact: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
    """`.example.com` for `*.example.com`: every name under it, of any depth, and not itself."""

    @classmethod
    def read(cls, entries: Iterable[str]) -> "HostNames":
        """From names and addresses, without ports. Raises `ValueError` that names every fault."""
        exact, endings, faults = [], [], []
        for entry in entries:
            name = _plain(entry)
            if _is_ipv6(name) or _NAME.fullmatch(name):
                exact.append(name)
            elif name.startswith("*.") and _NAME.fullmatch(name[2:]):
                endings.append(name[1:])
            else:
                faults.append(f"{entry} {_fault(entry)}")
        if faults:
            raise ValueError("; ".join(faults))
        return cls(frozenset(exact), tuple(endings))

    def __bool__(self) -> bool:
        return bool(self.exact or self.endings)

    def allow(self, scope: Scope) -> bool:
        """Whether the request names one of them; not if it names no host, or several."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        match = HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if match is None:
            return False
        name = _plain(match[1])
        return name in self.exact or (name.endswith(self.endings) and not name.startswith("."))


ANY_NAME: Final = HostNames()


def _fault(entry: str) -> str:
    if entry == "*":
        return "alone is every name: leave the setting out for that"
    if HOST.fullmatch(entry):
        return "has a port: a name is allowed at every port"
    return "is no host name, and none with *. before it"


def _plain(host: str) -> str:
    """Without brackets and the last dot of a full name; IPv6 in its shortest form."""
    name = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    return str(ipaddress.IPv6Address(name)) if _is_ipv6(name) else name


def _is_ipv6(name: str) -> bool:
    if ":" not in name or "%" in name:
        return False
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True
