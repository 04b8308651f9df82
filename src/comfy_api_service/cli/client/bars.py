"""Progress as it is shown: a bar with steps in a terminal, a line at each change of state elsewhere."""

import base64
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from comfy_api_service.cli.client import inline
from comfy_api_service.cli.client.live import Live, live
from comfy_api_service.cli.output import say, stderr


class Shown(Protocol):
    """What follows a job's events; `show` is given every one of them."""

    @property
    def previews(self) -> bool:
        """Whether it shows pictures; if not, none are asked for."""

    def show(self, event: Mapping[str, Any]) -> None: ...


def words(event: Mapping[str, Any]) -> str:
    """Where a job stands, in a few words; "" if the event does not say."""
    job = whole(event)
    status = event.get("status") or job.get("status")
    kind = event.get("type")
    if kind == "requeued":
        return "queued again: the attempt was lost"
    if kind == "progress":
        message = event.get("message")
        return str(message) if message else "running"
    if kind in {"artifact", "preview"}:
        return ""
    if job.get("canceling"):
        return "canceling"
    position = job.get("queue_position")
    if status == "queued" and position:
        return f"queued, number {position}"
    return str(status or "")


def steps(event: Mapping[str, Any]) -> tuple[float | None, str]:
    """(per cent done, steps in words), as far as the event says."""
    job = whole(event)
    percent = event.get("progress", job.get("progress"))
    step, total = event.get("step", job.get("current_step")), event.get("total", job.get("total_steps"))
    known = isinstance(percent, int | float)
    return float(percent) if known else None, f"step {step}/{total}" if step and total else ""


def whole(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job in an event that carries it, whether beside its type or under `job`."""
    job = event.get("job")
    return job if isinstance(job, dict) else event


class _Bar:
    def __init__(self, progress: Progress, pictures: Live | None) -> None:
        self._progress = progress
        self._pictures = pictures
        self._task = progress.add_task("sending", total=100.0, steps="")

    @property
    def previews(self) -> bool:
        return self._pictures is not None

    def show(self, event: Mapping[str, Any]) -> None:
        if self._pictures is not None:
            _picture(event, self._pictures)
        text, (percent, counted) = " ".join(words(event).split()), steps(event)
        again = event.get("type") == "requeued"
        if text:
            self._progress.update(self._task, description=escape(text))
        if counted or again:
            self._progress.update(self._task, steps=counted)
        if percent is not None or again:
            self._progress.update(self._task, completed=0.0 if again else percent)
        if event.get("status") == "succeeded":
            self._progress.update(self._task, completed=100.0)


def _picture(event: Mapping[str, Any], pictures: Live) -> None:
    """A preview is drawn; what came of an attempt that is over is cleared."""
    kind = event.get("type")
    if kind == "preview" and event.get("data"):
        with contextlib.suppress(TypeError, ValueError):  # no base64
            pictures.offer(base64.b64decode(event["data"], validate=True))
    elif kind in {"requeued", "done"}:
        pictures.clear()


class _Lines:
    """For logs and pipes: nothing is said twice, and progress once each quarter."""

    previews = False

    def __init__(self) -> None:
        self._last = ""
        self._quarter = 0

    def show(self, event: Mapping[str, Any]) -> None:
        percent, counted = steps(event)
        if event.get("type") == "progress" and percent is not None:
            quarter = int(percent // 25)
            if quarter > self._quarter and percent < 100:
                self._quarter = quarter
                say(f"running, {percent:.0f} %" + (f", {counted}" if counted else ""))
            return
        text = words(event)
        if text and text != self._last:
            self._last = text
            say(text)


@contextlib.contextmanager
def bar(*, previews: bool = False) -> Iterator[Shown]:
    """A display on stderr for one job; with `previews`, of its unfinished picture too, where that can be."""
    console = stderr()
    if not console.is_terminal:
        yield _Lines()
        return
    console.soft_wrap = False
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
    )
    how = _protocol(console) if previews else None
    with contextlib.ExitStack() as stack:
        pictures = None if how is None else stack.enter_context(live(console, how))
        progress = stack.enter_context(Progress(*columns, console=console))
        if pictures is not None:
            stack.callback(pictures.clear)
        yield _Bar(progress, pictures)


def _protocol(console: Console) -> inline.Protocol | None:
    """How pictures can be redrawn here: a bar that is only said to be in a terminal cannot show any."""
    return inline.protocol(os.environ, is_terminal=console.is_interactive and sys.stderr.isatty())
