"""What ends a command: one line that says what is wrong, one that says what to do, and an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """As documented in `comfy-api --help`."""

    OK = 0
    FAILED = 1
    """The service refused, the job failed, or a check found a fault."""
    USAGE = 2
    """The command line or the settings are wrong."""
    UNREACHABLE = 3
    """No server answers."""
    INTERRUPTED = 130


class Fault(Exception):
    """An expected fault: shown without a traceback by `main`. `lines` stand between message and remedy."""

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        lines: tuple[str, ...] = (),
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.lines = lines
        self.exit_code = exit_code
