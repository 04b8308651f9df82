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
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()  # taken and left by threads as they come
        self._write_by = 0.0
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> "Lines":
        """As the factory of loggers: all are this one."""
        return self

    def msg(self, line: bytes) -> None:
        waiting, now = self._waiting, time.monotonic()
        waiting.append(line)
        if len(waiting) == 1:
            self._write_by = now + HELD_SECONDS
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()
            else:
                loop.call_later(HELD_SECONDS, self.flush)
        elif now > self._write_by or len(waiting) > MOST:
            self.flush()  # a loop that ended does not come back for what it held

    log = debug = info = msg

    def at_once(self, line: bytes) -> None:
        self._waiting.append(line)
        self.flush()

    warn = warning = error = exception = critical = fatal = failure = err = at_once

    def flush(self) -> None:
        """Whoever reads the log may have gone: that is no reason to fail a request."""
        with self._lock:
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if lines:
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(b"\n".join([*lines, b""]))
                    self._stream.flush()
