"""Exceptions as the log shows them: types and stacks. What an unexpected one says may quote a prompt, a key or a
path, so it is left out unless the operator asks for it.
"""

import traceback
from collections.abc import Iterator
from typing import Any, Final, TextIO

HIDDEN: Final = " (its message is not logged; LOG_FAULT_MESSAGES=true changes that)"
_CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


class Told:
    """Puts an exception into words, for either form of the log."""

    def __init__(self, *, messages: bool) -> None:
        self._messages = messages

    def __call__(self, exc_info: Any) -> str:
        """Of what `sys.exc_info` gives."""
        fault = exc_info[1]
        if fault is None:
            return ""
        if self._messages:
            return "".join(traceback.format_exception(fault)).rstrip()
        return "".join(_lines(fault, set())).rstrip()

    def print(self, out: TextIO, info: Any) -> None:
        out.write("\n" + self(info))


def _lines(fault: BaseException, seen: set[int]) -> Iterator[str]:
    if id(fault) in seen:
        return
    seen.add(id(fault))
    before = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen)
        yield _CAUSED if fault.__cause__ is not None else _DURING
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(fault.__traceback__)
    yield f"{type(fault).__module__}.{type(fault).__qualname__}{_said(fault)}\n"
    if isinstance(fault, BaseExceptionGroup):
        for number, one in enumerate(fault.exceptions, start=1):
            yield f"--- {number} of {len(fault.exceptions)} ---\n"
            yield from _lines(one, seen)


def _said(fault: BaseException) -> str:
    """The system's own words for its errors are known; file names stand beside them."""
    if isinstance(fault, OSError) and fault.strerror and isinstance(fault.errno, int) and fault.errno > 0:
        return f": [Errno {fault.errno}]"
    return HIDDEN if fault.args else ""
