"""The machine: Python, SQLite, open files, the port."""

import platform
import sqlite3
import sys
from collections.abc import Callable
from typing import Final

from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.listening import PortInUse, close, listen

OLDEST_PYTHON: Final = (3, 11)
OLDEST_SQLITE: Final = (3, 35, 0)
"""RETURNING, which claims and counters use."""
FEW_FILES: Final = 4096


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return fault(
            "Python", f"{shown} is too old", "Install Python 3.11 or newer, and this program with it."
        )
    return ok("Python", f"{shown} ({platform.python_implementation()}, {sys.platform})")


def sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Finding:
    shown = ".".join(map(str, version))
    if version < OLDEST_SQLITE:
        return fault(
            "SQLite",
            f"{shown} is too old: 3.35 or newer is needed",
            "Use a Python that was built with a newer SQLite (those of uv and python.org are).",
        )
    return ok("SQLite", shown)


def file_limit() -> int | None:
    """How many files this process may open at most (`serve` raises its own limit to it); None: no limit."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def open_files(limit: Callable[[], int | None] = file_limit) -> Finding:
    most = limit()
    if most is not None and most < FEW_FILES:
        return warning(
            "open files",
            f"the limit is {most}: each listener and each connection takes one",
            f"Raise the hard limit to {FEW_FILES} or more (`ulimit -Hn`, LimitNOFILE= of systemd, "
            "--ulimit nofile= of Docker).",
        )
    return ok("open files", "no limit" if most is None else f"at most {most}")


def port(host: str, number: int, is_ours: Callable[[str, int], bool]) -> Finding:
    """`is_ours` tells whether this service answers there already."""
    subject = f"port {number}"
    if number == 0:
        return ok(subject, "a free one is taken at start")
    try:
        close(listen(host, number))
    except PortInUse:
        if is_ours(host, number):
            return ok(subject, f"this service answers on {host} already")
        return fault(
            subject,
            f"in use on {host} by another program",
            f"Stop that program (`ss -ltnp 'sport = :{number}'` names it), or set PORT to another.",
        )
    except Fault as error:
        return fault(subject, error.message, error.remedy or "Set HOST and PORT to what this machine has.")
    return ok(subject, f"free on {host}")
