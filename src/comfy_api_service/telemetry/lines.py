"""Lines of the log on their way out: those of a few turns of the event loop leave together, for a write costs a
request more than its line does.
"""

import asyncio
import atexit
import contextlib
import threading
import time
from typing import IO, Any, Final

MOST_BYTES: Final = 65_536
"""Held back at most."""
HELD_SECONDS: Final = 0.02


class Lines:
    """What structlog writes to. A line waits for those that come soon after it; a warning or worse, and what comes
    from other threads, for nothing.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._write_by = 0.0
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> "Lines":
        """As the factory of loggers: all are this one."""
        return self

    def msg(self, line: bytes) -> None:
        with self._lock:
            self._waiting.append(line)
            self._bytes += len(line)
            now, first = time.monotonic(), len(self._waiting) == 1
            if first:
                self._write_by = now + HELD_SECONDS
            # a loop that ended does not come back for what it held
            due = self._bytes > MOST_BYTES or now > self._write_by
        if due:
            self.flush()
        elif first:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()
            else:
                loop.call_later(HELD_SECONDS, self.flush)

    log = debug = info = msg

    def at_once(self, line: bytes) -> None:
        with self._lock:
            self._waiting.append(line)
        self.flush()

    warn = warning = error = exception = critical = fatal = failure = err = at_once

    def flush(self) -> None:
        """Whoever reads the log may have gone: that is no reason to fail a request."""
        with self._lock:
            if not self._waiting:
                return
            self._waiting.append(b"")
            text = b"\n".join(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
