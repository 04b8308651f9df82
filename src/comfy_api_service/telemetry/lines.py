"""Lines of the log on their way out: those of a twentieth of a second leave together, for a write costs a
request more than its line does.
"""

import asyncio
import atexit
import contextlib
import threading
import time
from collections import deque
from typing import IO, Any, Final

MOST: Final = 200
"""Lines that are held back."""
HELD_SECONDS: Final = 0.05


class Lines:
    """What structlog writes to. A line waits for those that come soon after it; a warning or worse, and what comes
    from other threads, for nothing.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a finalizer may log in the middle of `flush`
        self._waiting: deque[bytes] = deque()  # taken and left by threads as they come
        self._write_by = 0.0
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> "Lines":
        """As the factory of loggers: all are this one."""
        return self

    def msg(self, line: bytes) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        now, waiting = time.monotonic(), len(self._waiting)
        if now < self._write_by and waiting <= MOST:
            return  # a loop comes back for it
        if waiting > 1:
            self.flush()  # one that ended does not
        else:
            self._write_by = now + HELD_SECONDS
            loop.call_later(HELD_SECONDS, self.flush)

    log = debug = info = msg

    def at_once(self, line: bytes) -> None:
        self._waiting.append(line)
        self.flush()

    warn = warning = error = exception = critical = fatal = failure = err = at_once

    def flush(self) -> None:
        """Whoever reads the log may have gone: that is no reason to fail a request."""
        with self._lock:
            lines = []
            try:
                while True:
                    lines.append(self._waiting.popleft())
            except IndexError:  # no more, or they were taken meanwhile
                pass
            if lines:
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(b"\n".join([*lines, b""]))
                    self._stream.flush()
