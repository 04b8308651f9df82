"""Stands between the service and a local ComfyUI, and stops it when the service is gone, however it went.

Run as a script by the supervisor: `keeper.py GRACE COMMAND …`. Its standard input is a pipe that only the
service holds open. The end of that pipe means "stop", whether the service closed it or was killed by
`kill -9`; this needs nothing of the operating system but pipes. On Linux the kernel also kills ComfyUI if the
keeper itself is killed (PR_SET_PDEATHSIG). Keeper, ComfyUI and what that starts are one process group, which
is ended as a whole. Standard library only, and few parts of it: it starts in an instant.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

PR_SET_PDEATHSIG: Final = 1
CANNOT_START: Final = 127


def main(grace: float, command: list[str]) -> int:
    """Run `command` until it ends or nobody holds standard input; its exit status, as a shell tells it.

    What it started and left is for the supervisor to end.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - the operator's own command
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - there is no other thread yet
        )
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", flush=True)
        return CANNOT_START
    ended = threading.Event()
    threading.Thread(target=_stop_when_alone, args=(ended, grace), daemon=True).start()
    status = child.wait()
    ended.set()
    if _stopping.is_set():
        os.killpg(0, signal.SIGKILL)
    return 128 - status if status < 0 else status


_stopping = threading.Event()


def _stop_when_alone(ended: threading.Event, grace: float) -> None:
    while os.read(0, 4096):
        pass
    _stopping.set()
    os.killpg(0, signal.SIGTERM)
    if not ended.wait(grace):
        os.killpg(0, signal.SIGKILL)


def _die_with(keeper: int) -> Callable[[], None] | None:
    """What the child runs before it becomes ComfyUI; nothing where the kernel offers nothing."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)

    def prepare() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(CANNOT_START)

    return prepare


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # not inherited by ComfyUI, as a handler
        signal.signal(ignored, lambda *_: None)
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
