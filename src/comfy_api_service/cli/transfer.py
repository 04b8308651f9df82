"""Progress of bytes: a bar in a terminal, a line for each step elsewhere."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from comfy_api_service.cli.output import say, stderr

if TYPE_CHECKING:
    from rich.progress import TaskID

    from comfy_api_service.domain.backup import Told

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def in_bytes(size: int) -> str:
    """As people read it: 4.2 MB."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


@contextlib.contextmanager
def transfer() -> Iterator["Told"]:
    """What is given label, bytes done, and of how many."""
    console = stderr()
    if not console.is_terminal:
        yield _lines()
        return
    from rich.progress import (  # noqa: PLC0415 - loaded when there is something to show
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    console.soft_wrap = False
    tasks: dict[str, TaskID] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def told(label: str, done: int, whole: int | None) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=whole)
            progress.update(tasks[label], completed=done, total=whole)

        yield told


def _lines() -> "Told":
    """Each step once, when it begins."""
    seen: set[str] = set()

    def told(label: str, done: int, whole: int | None) -> None:
        del done
        if label not in seen:
            seen.add(label)
            say(label + (f", {in_bytes(whole)}" if whole else ""))

    return told
