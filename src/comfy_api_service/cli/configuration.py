"""The effective settings for a command, with every fault of theirs told at once, and what in `.env` is none."""

from typing import TYPE_CHECKING, Any

from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.cli.output import say

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings


def effective(*, quiet: bool = False, **overrides: Any) -> "Settings":
    """Settings from options (those that are not None), environment and `.env`. Raises `Fault`.

    `quiet`: whoever started this process has told already what does nothing.
    """
    from comfy_api_service.settings import SettingsError, load, without_effect  # noqa: PLC0415 - slow to load

    if not quiet:
        for line in without_effect():
            say(f"warning: .env: {line}")
    try:
        return load(**overrides)
    except SettingsError as error:
        raise Fault(
            "The settings are wrong:",
            "Correct them in the options, the environment or .env; `comfy-api doctor` explains each.",
            lines=tuple(error.faults),
            exit_code=ExitCode.USAGE,
        ) from None


def needs_server(settings: "Settings") -> None:
    """Roles that run apart share a database server. Raises `Fault`."""
    if settings.postgres_url is None:
        raise Fault(
            "API and workers that run apart need a database that they can share, and DATABASE_URL names none.",
            "Set DATABASE_URL=postgresql://user:password@host/name, or run both in one with `comfy-api serve`.",
            exit_code=ExitCode.USAGE,
        )
