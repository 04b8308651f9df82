"""Where the service listens: sockets are taken before anything else starts, so that a busy port is told at once."""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from comfy_api_service.cli.faults import ExitCode, Fault

BACKLOG: Final = 2048
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class PortInUse(Fault):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} of {host} is in use.",
            "Stop what listens there, or choose another port with --port (0 takes a free one).",
        )


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, with one port. Raises `Fault`."""
    taken: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in _addresses(host, port):
        try:
            taken.append(_listen(family, address, taken[0].getsockname()[1] if taken and not port else None))
        except OSError as error:
            if error.errno in _ABSENT:
                absent = error
                continue
            close(taken)
            raise _fault(error, host, port) from None
    if not taken:
        raise _no_address(host) from absent
    return taken


def listen_or_free(host: str, port: int) -> tuple[list[socket.socket], bool]:
    """As `listen`, on a free port if that one is in use; true if it is."""
    try:
        return listen(host, port), False
    except PortInUse:
        return listen(host, 0), True


def close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


def port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """An address that this machine can open; "all addresses" are reached by loopback."""
    scheme = "https" if tls else "http"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"{scheme}://[{address}]:{port}" if address.version == 6 else f"{scheme}://{address}:{port}"


def beyond(host: str) -> str:
    """What is to be told beside `url_of`: empty, but where that is one of many addresses."""
    try:
        unspecified = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return ""
    return f" (and on every other address of this machine: {host})" if unspecified else ""


def is_loopback(host: str) -> bool:
    """True if every address that the name stands for can be reached from this machine alone."""
    return all(
        ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        for _, address in _addresses(host, 0)
    )


def refuse_exposure(host: str, *, auth_enabled: bool, insecure: bool) -> None:
    """Without authentication, other machines are kept out unless that is asked for."""
    if auth_enabled or insecure or is_loopback(host):
        return
    raise Fault(
        f"{host} can be reached from other machines, and authentication is off.",
        "Set AUTH_ENABLED=true (then `comfy-api admin create` makes the first key), listen on 127.0.0.1 behind a "
        "reverse proxy that authenticates, or pass --insecure if everybody who can reach this address may use the "
        "service.",
        exit_code=ExitCode.USAGE,
    )


def free_port(first: int, tries: int = 200) -> int:
    """The first loopback port from `first` on that nobody listens on."""
    for port in range(first, min(first + tries, 65536)):
        try:
            close(listen("127.0.0.1", port))
        except PortInUse:
            continue
        return port
    raise Fault(f"No port from {first} to {first + tries - 1} is free.")


def _addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _listen(family: int, address: tuple[object, ...], port: int | None) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address if port is None else (address[0], port, *address[2:]))
        one.listen(BACKLOG)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _fault(error: OSError, host: str, port: int) -> Fault:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(host, port)
    if error.errno == errno.EACCES:
        return Fault(
            f"Port {port} needs more rights than this user has.", "Choose a port above 1023 with --port."
        )
    return Fault(f"Cannot listen on {host}, port {port}: {error.strerror}.")


def _no_address(host: str) -> Fault:
    return Fault(
        f"{host} is no address of this machine.",
        "Give --host 127.0.0.1, 0.0.0.0 (all addresses), or an address that this machine has.",
        exit_code=ExitCode.USAGE,
    )
