"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and something is worth knowing."""
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what was looked at; `remedy` says what to do, empty only if there is nothing to do."""

    status: Level
    subject: str
    message: str
    remedy: str = ""


def ok(subject: str, message: str) -> Finding:
    return Finding(Level.OK, subject, message)


def warning(subject: str, message: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, subject, message, remedy)


def fault(subject: str, message: str, remedy: str) -> Finding:
    return Finding(Level.FAULT, subject, message, remedy)
