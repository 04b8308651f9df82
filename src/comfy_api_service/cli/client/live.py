"""The unfinished picture, redrawn in place above the bar; nothing of it stays.

Everything is relative to the bar, which is one line and holds the cursor between two writes. Where that can
no longer be relied on (a line was printed, the window resized, the program suspended), no line is touched.
"""

import asyncio
import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.segment import ControlType, Segment

from comfy_api_service.cli.client import inline

SECONDS: Final = 0.5
"""Between two drawings, at least."""
HIGHEST: Final = 12
LOWEST: Final = 3
"""Lines of the terminal."""
_LEFT_OVER: Final = 4
"""Lines that stay free for what stood there before."""
_NARROWEST_CELL: Final = 0.4
"""Its width over its height: a picture that fits by this fits with every font."""


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


class Live(RenderHook):
    """`offer` it pictures as they come; the newest is drawn, at most one each `SECONDS`."""

    def __init__(
        self,
        console: Console,
        how: inline.Protocol,
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self._console = console
        self._how = how
        self._clock = clock
        self._later = later or _later
        self._size = console.size
        self._next = clock()
        self._waiting: tuple[bytes, Timer] | None = None
        self._lines = 0
        """So many lines above the bar belong to the picture."""
        self._aspect = 0.0
        self._lost = False
        self._ids = (1 + secrets.randbelow(2**31), 1 + secrets.randbelow(2**31))
        """Two, in turn: the new picture stands before the old one is taken away."""

    def offer(self, picture: bytes) -> None:
        """Draw it now, or when its time has come and no newer one has."""
        self._forget()
        wait = self._next - self._clock()
        if wait <= 0:
            self._draw(picture)
        else:
            self._waiting = (picture, self._later(wait, self._due))

    def clear(self) -> None:
        """Take the picture and its lines away; the bar moves up."""
        self._forget()
        text = self._removal()
        if text:
            self._console.control(_Raw(text))

    def lose(self) -> None:
        """Nobody knows any more where the picture's lines are: from now on nothing is drawn."""
        self._lost = self._lost or self._lines > 0

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed goes between picture and bar, so the picture goes first."""
        if self._lines and not all(isinstance(one, Control) for one in renderables):
            return [_Raw(self._removal()), *renderables]
        return renderables

    def _due(self) -> None:
        if self._waiting is not None:
            picture, _ = self._waiting
            self._waiting = None
            self._draw(picture)

    def _forget(self) -> None:
        if self._waiting is not None:
            self._waiting[1].cancel()
            self._waiting = None

    def _draw(self, picture: bytes) -> None:
        if not self._lines:
            self._size = self._console.size
        elif not self._placed():
            self.lose()
            self.clear()
        if self._lost:
            return
        small = inline.preview(picture, self._how)
        if small is None:
            return
        if self._lines and small.aspect != self._aspect:
            self.clear()
        lines = self._lines or self._room(small.aspect)
        if lines < LOWEST:
            return
        text = "" if self._lines else "\r\x1b[2K" + "\n" * lines
        new, old = self._ids
        text += f"\x1b7\r\x1b[{lines}A{inline.in_place(small, self._how, lines=lines, image_id=new)}\x1b8"
        if self._lines and self._how is inline.Protocol.KITTY:
            text += inline.removed(old)
        self._lines, self._aspect, self._ids = lines, small.aspect, (old, new)
        self._console.control(_Raw(text))
        self._console.print(Control())  # the bar, in its new place
        self._next = self._clock() + SECONDS

    def _removal(self) -> str:
        lines, self._lines = self._lines, 0
        if not lines:
            return ""
        text = inline.removed(self._ids[1]) if self._how is inline.Protocol.KITTY else ""
        return text + f"\r\x1b[{lines}A\x1b[{lines}M" if self._placed() else text

    def _placed(self) -> bool:
        return not self._lost and self._console.size == self._size

    def _room(self, aspect: float) -> int:
        width, height = self._size
        return min(HIGHEST, height - _LEFT_OVER, int(width * _NARROWEST_CELL / aspect))


@contextlib.contextmanager
def live(console: Console, how: inline.Protocol) -> Iterator[Live]:
    """Enter it before the bar is, and clear it before the bar ends."""
    shown = Live(console, how)
    console.push_render_hook(shown)
    try:
        with _resumed(shown.lose):
            yield shown
    finally:
        console.pop_render_hook()


@contextlib.contextmanager
def _resumed(call: Callable[[], None]) -> Iterator[None]:
    """Call it when the program goes on after a Ctrl-Z: the shell wrote below the bar meanwhile."""
    number = getattr(signal, "SIGCONT", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(number, before)


def _later(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)


class _Raw(Control):
    """Sequences that rich has no names for; written as they are, without the bar being drawn anew."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        self.segment = Segment(text, None, [(ControlType.BELL,)])
