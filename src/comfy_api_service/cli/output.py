"""How commands speak: results on stdout, everything said about them on stderr, plain where nobody looks."""

import asyncio
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from comfy_api_service.cli.faults import ExitCode, Fault

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def examples(*lines: str) -> str:
    """The epilog of a command's help: a blank line keeps each example on a line of its own."""
    shown = [f"  [cyan]{line.replace('[', chr(92) + '[')}[/cyan]" for line in lines]
    return "\n\n".join(["[bold]Examples[/bold]", *shown])


def stdout() -> "Console":
    return _console(stderr=False)


def stderr() -> "Console":
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - loaded when there is something to show

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line about what is going on."""
    print(text, file=sys.stderr, flush=True)


def tell(fault: Fault) -> None:
    """Show a fault the one way all commands do."""
    console = stderr()
    console.print("[bold red]error:[/bold red]", end=" ")
    console.print(fault.message, markup=False)
    for line in fault.lines:
        console.print(f"  - {line}", markup=False)
    if fault.remedy:
        console.print("  [bold]fix:[/bold]", end=" ")
        console.print(fault.remedy, markup=False)


def as_json_text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C or SIGTERM cancels it and ends the command as an interruption."""
    try:
        return asyncio.run(_until_told(work))
    except (KeyboardInterrupt, _Terminated):
        raise SystemExit(ExitCode.INTERRUPTED) from None


class _Terminated(Exception):
    """SIGTERM came, and what it cancelled has ended."""


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Cancel on SIGTERM, as the loop itself does on SIGINT; not where the caller made it be ignored."""
    task = asyncio.current_task()
    told = False

    def cancel() -> None:
        nonlocal told
        told = True
        if task is not None:
            task.cancel()

    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if told:
            raise _Terminated from None
        raise
