"""The locked dependencies, read from the lock files."""

import re
from pathlib import Path
from typing import Final

_PINNED: Final = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def normal(name: str) -> str:
    """As the index of packages compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(lock: Path) -> dict[str, str]:
    """Versions by normal name. Raises `ValueError` if nothing is pinned there."""
    found = {normal(name): version for name, version in _PINNED.findall(lock.read_text(encoding="utf-8"))}
    if not found:
        raise ValueError(f"{lock.name} pins nothing")
    return found
