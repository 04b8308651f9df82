"""Times as callers and logs see them: ISO 8601 in UTC, with milliseconds and a `Z`."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final


def iso(seconds: float) -> str:
    """From seconds since the epoch."""
    return _millisecond(int(seconds * 1000))


@lru_cache(maxsize=64)
def _millisecond(milliseconds: int) -> str:
    """Many lines and answers are of the same one."""
    seconds, rest = divmod(milliseconds, 1000)
    day, of_day = divmod(seconds, 86_400)
    minutes, second = divmod(of_day, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day(day)}T{_TWO_DIGITS[hour]}:{_TWO_DIGITS[minute]}:{_TWO_DIGITS[second]}{_MILLISECONDS[rest]}"


_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_TWO_DIGITS: Final = tuple(f"{number:02d}" for number in range(60))


def iso_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


def seconds_of(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; without a zone it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


@lru_cache(maxsize=64)
def _day(number: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()


def utc_day(at: float) -> str:
    """The UTC day of a moment, `YYYY-MM-DD`: the day a submission is counted on."""
    return _day(int(at // 86_400))


def next_utc_day(at: float) -> float:
    """When the day after begins, in seconds since the epoch."""
    return (at // 86_400 + 1) * 86_400.0
