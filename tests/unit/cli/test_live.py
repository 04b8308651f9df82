"""The unfinished picture, on a terminal that keeps what it was told."""

import asyncio
import base64
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TextColumn
from tests.unit.cli.terminal import Terminal

from comfy_api_service.cli.client import bars, live
from comfy_api_service.cli.client.inline import Protocol

EARLIER = ["$ ls", "fox.png", "$ comfy-api generate"]


def picture(width: int = 64, height: int = 64, form: str = "JPEG", colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, form)
    return out.getvalue()


@dataclass(slots=True)
class Clock:
    """Time and its timers, moved by hand."""

    now: float = 100.0
    calls: list[tuple[float, "Timer"]] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> "Timer":
        timer = Timer(call)
        self.calls.append((self.now + seconds, timer))
        return timer

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for at, timer in self.calls if at <= self.now]
        self.calls = [(at, timer) for at, timer in self.calls if at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.call()


@dataclass(slots=True)
class Timer:
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class Screen(io.StringIO):
    """What rich writes to."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def write(self, text: str) -> int:
        self.terminal.feed(text)
        return len(text)


@dataclass(slots=True)
class Scene:
    """A bar on a terminal, with room above it for a picture."""

    terminal: Terminal
    console: Console
    progress: Progress
    shown: live.Live
    clock: Clock

    def expect(self, *lines: str) -> None:
        self.progress.refresh()
        assert self.terminal.text == [*EARLIER, *lines]


@pytest.fixture
def how() -> Protocol:
    return Protocol.KITTY


@pytest.fixture
def scene(how: Protocol, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal, clock = Terminal(), Clock()
    terminal.feed("\n".join(EARLIER) + "\n")
    console = Console(file=Screen(terminal), force_terminal=True, width=80, height=24, highlight=False)
    shown = live.Live(console, how, clock=clock, later=clock.later)
    console.push_render_hook(shown)
    columns = TextColumn("{task.description}")
    with Progress(columns, console=console, auto_refresh=False, redirect_stderr=False) as progress:
        progress.add_task("bar")
        yield Scene(terminal, console, progress, shown, clock)
    console.pop_render_hook()


@pytest.mark.parametrize("how", Protocol)
def test_it_stands_above_the_bar_and_nothing_of_it_stays(scene: Scene, how: Protocol) -> None:
    scene.shown.offer(picture())
    scene.expect(*[""] * 12, "bar")
    (drawn,) = scene.terminal.pictures.values()
    assert (drawn.row, drawn.lines) == (len(EARLIER), 12)
    assert drawn.form == ("PNG" if how is Protocol.KITTY else "JPEG")
    scene.shown.clear()
    scene.expect("bar")
    assert not scene.terminal.pictures


@pytest.mark.parametrize("how", Protocol)
def test_a_newer_one_takes_its_place_without_a_gap(scene: Scene, how: Protocol) -> None:
    for _ in range(5):
        scene.shown.offer(picture())
        scene.clock.move(1)
        assert len(scene.terminal.pictures) == 1
    scene.expect(*[""] * 12, "bar")
    assert {one.row for one in scene.terminal.drawn} == {len(EARLIER)}
    assert scene.terminal.most == (2 if how is Protocol.KITTY else 1)
    scene.shown.clear()
    scene.expect("bar")
    assert not scene.terminal.pictures


def test_it_scrolls_a_full_screen_and_gives_the_lines_back(scene: Scene) -> None:
    scene.console.print(*range(40), sep="\n")
    scene.shown.offer(picture())
    scene.clock.move(1)
    scene.shown.offer(picture())
    assert len({one.row for one in scene.terminal.drawn}) == 1
    scene.shown.clear()
    scene.expect(*map(str, range(40)), "bar")


def test_at_most_two_a_second_the_newest_of_them(scene: Scene) -> None:
    for n in range(1, 31):  # eight a second
        scene.shown.offer(picture(n, n, "PNG"))
        scene.clock.move(0.125)
    assert [one.size[0] for one in scene.terminal.drawn] == [1, 4, 8, 12, 16, 20, 24, 28]
    scene.clock.move(10)
    assert [one.size[0] for one in scene.terminal.drawn[8:]] == [30]


def test_what_waits_is_not_drawn_after_the_end(scene: Scene) -> None:
    scene.shown.offer(picture())
    scene.shown.offer(picture())
    scene.shown.clear()
    scene.clock.move(1)
    assert len(scene.terminal.drawn) == 1
    scene.expect("bar")


@pytest.mark.parametrize("how", Protocol)
def test_a_printed_line_is_kept_and_the_picture_comes_back_under_it(scene: Scene) -> None:
    scene.shown.offer(picture())
    scene.console.print("job_1 is being canceled")
    assert not scene.terminal.pictures
    scene.expect("job_1 is being canceled", "bar")
    scene.clock.move(1)
    scene.shown.offer(picture())
    scene.expect("job_1 is being canceled", *[""] * 12, "bar")
    scene.shown.clear()
    scene.expect("job_1 is being canceled", "bar")


@pytest.mark.parametrize(
    ("size", "lines"), [((512, 512), 12), ((1024, 256), 8), ((256, 1024), 12), ((2048, 128), 0)]
)
def test_it_fits_into_the_terminal(scene: Scene, size: tuple[int, int], lines: int) -> None:
    scene.shown.offer(picture(*size))
    assert [one.lines for one in scene.terminal.drawn] == ([lines] if lines else [])
    for one in scene.terminal.drawn:
        assert max(one.size) == 256
        assert one.lines / 0.4 * size[0] / size[1] <= 80


def test_a_low_terminal_shows_none(scene: Scene) -> None:
    scene.console.size = (80, 6)
    scene.shown.offer(picture())
    assert not scene.terminal.drawn


@pytest.mark.parametrize("how", Protocol)
def test_another_shape_gets_other_lines(scene: Scene) -> None:
    scene.shown.offer(picture())
    scene.clock.move(1)
    scene.shown.offer(picture(512, 128))
    assert len(scene.terminal.pictures) == 1
    scene.expect(*[""] * 8, "bar")


@pytest.mark.parametrize(
    "broken",
    [b"", b"no picture", picture()[:300], picture(form="PNG")[:60]],
    ids=["empty", "words", "half a JPEG", "half a PNG"],
)
def test_what_is_no_picture_changes_nothing(scene: Scene, broken: bytes) -> None:
    scene.shown.offer(broken)
    scene.expect("bar")


@pytest.mark.parametrize("loss", ["resized", "suspended"])
def test_where_lines_may_have_moved_none_is_touched(scene: Scene, loss: str) -> None:
    scene.shown.offer(picture())
    if loss == "resized":
        scene.console.size = (60, 24)
    else:
        scene.shown.lose()
    scene.clock.move(1)
    scene.shown.offer(picture())
    scene.shown.clear()
    assert len(scene.terminal.drawn) == 1
    assert not scene.terminal.pictures
    scene.expect(*[""] * 12, "bar")


def test_a_loss_before_the_first_picture_does_not_matter(scene: Scene) -> None:
    scene.shown.lose()
    scene.console.size = (60, 24)
    scene.shown.offer(picture())
    assert len(scene.terminal.drawn) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGCONT"), reason="no suspension here")
def test_it_hears_that_the_program_was_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    before = signal.getsignal(signal.SIGCONT)
    terminal = Terminal()
    console = Console(file=Screen(terminal), force_terminal=True, width=80, height=24)
    with live.live(console, Protocol.KITTY) as shown:
        shown.offer(picture())
        os.kill(os.getpid(), signal.SIGCONT)
        shown.clear()
    assert not terminal.pictures
    assert terminal.row == 12
    assert signal.getsignal(signal.SIGCONT) is before


Kitty = Callable[[], Terminal]


@pytest.fixture
def kitty(monkeypatch: pytest.MonkeyPatch) -> Kitty:
    """Call it in the test: that is when standard error can be replaced."""
    return lambda: _kitty(monkeypatch)


def _kitty(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    out = Screen(terminal)
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setenv("LINES", "24")
    return terminal


def preview(data: object) -> dict[str, Any]:
    return {"type": "preview", "status": "running", "media_type": "image/jpeg", "data": data}


PREVIEW = preview(base64.b64encode(picture()).decode())


@pytest.mark.parametrize("end", ["done", "requeued", None])
def test_a_bar_shows_previews_until_the_attempt_ends(kitty: Kitty, end: str | None) -> None:
    screen = kitty()
    with bars.bar(previews=True) as shown:
        assert shown.previews
        for event in (PREVIEW, preview(None), preview("no base64!"), preview(7)):
            shown.show(event)
        assert len(screen.pictures) == 1
        if end is not None:
            shown.show({"type": end, "status": "queued"})
            assert not screen.pictures
    assert not screen.pictures
    assert len(screen.drawn) == 1
    assert len(screen.text) == 1


async def test_a_bar_that_ended_draws_nothing_more(kitty: Kitty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECONDS", 0.01)
    screen = kitty()
    with bars.bar(previews=True) as shown:
        shown.show(PREVIEW)
        shown.show(PREVIEW)
    await asyncio.sleep(0.05)
    assert len(screen.drawn) == 1


def refused(monkeypatch: pytest.MonkeyPatch, why: str) -> bool:
    """Prepare the reason; whether previews are asked for."""
    if why == "another terminal":
        monkeypatch.setenv("TERM", "xterm-256color")
    elif why == "dumb":
        monkeypatch.setenv("KITTY_WINDOW_ID", "1")
        monkeypatch.setenv("TERM", "dumb")
    elif why == "only said to be a terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    elif why == "no terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    return why != "switched off"


@pytest.mark.parametrize(
    "why", ["another terminal", "dumb", "only said to be a terminal", "no terminal", "switched off"]
)
def test_elsewhere_there_are_none(kitty: Kitty, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    screen = kitty()
    with bars.bar(previews=refused(monkeypatch, why)) as shown:
        assert not shown.previews
        shown.show(PREVIEW)
    assert not screen.drawn


def test_a_message_of_several_lines_stays_in_one(kitty: Kitty) -> None:
    screen = kitty()
    with bars.bar() as shown:
        shown.show({"type": "progress", "status": "running", "message": "loading\nthe model"})
    assert len(screen.text) == 1
    assert "loading the model" in screen.text[0]
