"""A wall clock that can be set while the service runs, in place of the system's."""

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from comfy_api_service.domain.clock import SystemClock

CLOCK: Final = "clock.json"


class Wall:
    """The time that a file says: an offset in seconds, how fast it runs, and since when."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CLOCK
        self._read_at: tuple[int, int] = (0, 0)
        self._says: dict[str, float] = {}

    def now(self) -> float:
        status = self._path.stat()
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._read_at:
            self._says = json.loads(self._path.read_text())
            self._read_at = stamp
        says = self._says
        return says["shown"] + (time.time() - says["since"]) * says["rate"]


def set_clock(folder: Path, *, offset: float = 0.0, rate: float = 1.0) -> None:
    """From now on the service's clock is `offset` seconds off, and runs `rate` times as fast."""
    now = time.time()
    folder.mkdir(exist_ok=True)
    path = folder / CLOCK
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"shown": now + offset, "since": now, "rate": rate}))
    os.replace(fresh, path)  # noqa: PTH105 - whole or not at all


def install(folder: Path) -> None:
    wall = Wall(folder)

    def now(self: Any) -> float:
        del self
        return wall.now()

    SystemClock.now = now  # type: ignore[method-assign]
