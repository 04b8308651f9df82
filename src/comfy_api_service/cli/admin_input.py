"""What is typed after `admin`: checked before anything is opened. All raise `Fault`."""

import sys
from pathlib import Path

import typer

from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.domain.credentials import Scope


def usage(message: str, remedy: str = "") -> Fault:
    return Fault(message, remedy, exit_code=ExitCode.USAGE)


def email(text: str) -> str:
    from comfy_api_service.domain.users import email_of  # noqa: PLC0415

    try:
        return email_of(text)
    except ValueError as fault:
        raise usage(f"--email {fault}.") from None


def username(text: str) -> str:
    from comfy_api_service.domain.users import username_of  # noqa: PLC0415

    try:
        return username_of(text)
    except ValueError as fault:
        raise usage(f"--username {fault}.") from None


def password(given: str | None, file: Path | None) -> str | None:
    """None: there is none. Asked for, twice, where somebody sits at a terminal."""
    if given is not None and file is not None:
        raise usage("Either --password or --password-file, not both.")
    if given is not None:
        return given
    if file is not None:
        try:
            text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise usage("The password's file cannot be read.") from None
        if not text.strip():
            raise usage("The password's file is empty.")
        return text.splitlines()[0]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    prompted: str = typer.prompt(
        "Password (empty: none)", default="", show_default=False, hide_input=True, err=True
    )
    if (
        prompted
        and typer.prompt("Again", default="", show_default=False, hide_input=True, err=True) != prompted
    ):
        raise usage("The two differ.")
    return prompted or None


def scopes(text: str | None) -> list[Scope] | None:
    if text is None:
        return None
    try:
        return sorted({Scope(part.strip()) for part in text.split(",")})
    except ValueError:
        raise usage("--scopes are of read, write and admin, comma-separated.") from None


def moment(text: str | None) -> float | None:
    """Seconds since the epoch."""
    if text is None:
        return None
    from comfy_api_service.domain.clock import SystemClock  # noqa: PLC0415
    from comfy_api_service.domain.tiers import duration  # noqa: PLC0415
    from comfy_api_service.domain.times import seconds_of  # noqa: PLC0415

    try:
        return SystemClock().now() + duration(text)
    except ValueError:
        pass
    try:
        return seconds_of(text)
    except (ValueError, OverflowError):
        raise usage("--expires is a time, as 2027-01-31T00:00:00Z, or a duration, as 90d.") from None
