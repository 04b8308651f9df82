"""The service as it would be without metrics and logs: the shell's command, told by signals to count and write, or not.

`prometheus_client` keeps its families and children, so that the same objects are asked; only what they do is gone.
One process is both, for two that are alike differ in their CPU by more than what is measured.
"""

import signal
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from comfy_api_service.api import gate
from comfy_api_service.api.measures import Measures
from comfy_api_service.cli.main import main

SILENT: Final = signal.SIGUSR1
TELLING: Final = signal.SIGUSR2


def _nothing(*_: object, **__: object) -> None:
    return None


class _Nowhere:
    """Instead of the variable that has the request's id for lines."""

    set = staticmethod(_nothing)


_PARTS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (Counter, "inc", _nothing),
    *((Gauge, name, _nothing) for name in ("inc", "dec", "set")),
    (Histogram, "observe", _nothing),
    *((Measures, name, _nothing) for name in ("entered", "left", "answered")),
    (gate, "REQUEST_ID", _Nowhere()),
    (gate.Gate, "_note", _nothing),  # lines and figures of a request
)


def switch_by_signals() -> None:
    telling = [getattr(owner, name) for owner, name, _ in _PARTS]

    def switch(number: int, _frame: object) -> None:
        for (owner, name, silent), usual in zip(_PARTS, telling, strict=True):
            setattr(owner, name, silent if number == SILENT else usual)

    for number in (SILENT, TELLING):
        signal.signal(number, switch)


if __name__ == "__main__":
    switch_by_signals()
    main()
