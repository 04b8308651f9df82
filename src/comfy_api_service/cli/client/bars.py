"""Progress as it is shown: a bar with steps in a terminal, a line at each change of state elsewhere."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from comfy_api_service.cli.output import say, stderr


class Shown(Protocol):
    """What follows a job's events; `show` is given every one of them."""

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
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("sending", total=100.0, steps="")

    def show(self, event: Mapping[str, Any]) -> None:
        text, (percent, counted) = words(event), steps(event)
        again = event.get("type") == "requeued"
        if text:
            self._progress.update(self._task, description=escape(text))
        if counted or again:
            self._progress.update(self._task, steps=counted)
        if percent is not None or again:
            self._progress.update(self._task, completed=0.0 if again else percent)
        if event.get("status") == "succeeded":
            self._progress.update(self._task, completed=100.0)


class _Lines:
    """For logs and pipes: nothing is said twice, and progress once each quarter."""

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
def bar() -> Iterator[Shown]:
    """A display on stderr for one job."""
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
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress)
