"""How commands speak: results on stdout, everything said about them on stderr, plain where nobody looks."""

import asyncio
import json
import sys
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
    """Run a command's coroutine; Ctrl-C cancels it and ends the command with the code of an interruption."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
