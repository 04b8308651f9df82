"""Tiers: what an account may do, from one table that the operator may change, and per account.

A table a tier, in TOML; what is absent keeps its default:

    [pro]
    images_per_day = 1000           # or "none": no limit
    running = 5                     # prompts at once
    waiting = 500                   # jobs
    submissions_per_minute = 20
    link_ttl = "24h"                # or seconds; s, m, h, d
    retention = "30d"
    weight = 4                      # the share in fair queueing
    pixel_steps = 2_000_000_000     # of one job: width times height times pictures times steps
    output_files = 64               # of one job
    output_bytes = "512MB"          # of one job
    nodes = ["MyNode"]              # classes that may be used beside those of NODE_POLICY
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

DAY: Final = 86_400.0
HOUR: Final = 3_600.0
MOST: Final = 1_000_000_000
"""The greatest limit that is a limit."""
LONGEST: Final = 100 * 365 * DAY
NONE: Final = "none"
MEGABYTE: Final = 1_000_000
NODES_MAX: Final = 10_000
_SIZE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(KB|MB|GB)")
_BYTES: Final = {"KB": 1_000, "MB": MEGABYTE, "GB": 1_000_000_000}
_CLASS: Final = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one account. None is no limit; `link_ttl` and `retention` are seconds."""

    images_per_day: int | None = None
    running: int | None = None
    """Jobs that backends have at once; the scheduler holds it, others wait."""
    waiting: int | None = None
    submissions_per_minute: int | None = None
    link_ttl: float = 7 * DAY
    retention: float = 90 * DAY
    weight: float = 1.0
    pixel_steps: float | None = None
    """The work of one job."""
    output_files: int | None = None
    """Of one job."""
    output_bytes: int | None = None
    """Of all files of one job."""
    nodes: tuple[str, ...] = ()
    """Node classes that may be used beside those that the node policy allows everybody."""

    def without_limits(self) -> "Limits":
        """As administrators have it."""
        return replace(
            self,
            images_per_day=None,
            running=None,
            waiting=None,
            submissions_per_minute=None,
            pixel_steps=None,
            output_files=None,
            output_bytes=None,
        )


UNLIMITED: Final = Limits()
TIERS: Final[Mapping[str, Limits]] = {
    "free": Limits(10, 1, 10, 5, HOUR, 7 * DAY, 1.0, 2.5e8, 32, 256 * MEGABYTE),
    "basic": Limits(100, 2, 50, 10, 6 * HOUR, 14 * DAY, 2.0, 1e9, 64, 512 * MEGABYTE),
    "pro": Limits(1_000, 5, 500, 20, DAY, 30 * DAY, 4.0, 1e10, 256, 2048 * MEGABYTE),
    "enterprise": Limits(None, None, None, 600, 7 * DAY, 90 * DAY, 8.0),
}
COUNTS: Final = ("images_per_day", "running", "waiting", "submissions_per_minute", "output_files")
DURATIONS: Final = ("link_ttl", "retention")
NAMES: Final = tuple(field.name for field in fields(Limits))


class LimitsAtFault(ValueError):
    """`faults` names each: where it stands, and what would be right."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in faults))
        self.faults = faults


def changed(limits: Limits, changes: Mapping[str, Any]) -> Limits:
    """With these limits in place of its own. Raises `LimitsAtFault`."""
    faults: list[tuple[str, str]] = []
    read: dict[str, Any] = {}
    for name, value in changes.items():
        try:
            read[name] = _read(name, value)
        except ValueError as fault:
            faults.append((name, str(fault)))
    if faults:
        raise LimitsAtFault(faults)
    return replace(limits, **read)


def tiers_from(document: Mapping[str, Any]) -> dict[str, Limits]:
    """The tiers with what an operator's table says. One of a new name begins as `free`. Raises `LimitsAtFault`."""
    tiers = dict(TIERS)
    faults: list[tuple[str, str]] = []
    for name, table in document.items():
        if not _NAME.fullmatch(name):
            faults.append((name, "a tier's name has small letters, digits, - and _, at most 32"))
        elif not isinstance(table, Mapping):
            faults.append((name, "a tier is a table: [pro]"))
        else:
            try:
                tiers[name] = changed(tiers.get(name, TIERS["free"]), table)
            except LimitsAtFault as fault:
                faults += [(f"{name}.{where}", what) for where, what in fault.faults]
    if faults:
        raise LimitsAtFault(faults)
    return tiers


def limits_of(
    tiers: Mapping[str, Limits], tier: str, overrides: Mapping[str, Any], *, admin: bool = False
) -> Limits:
    """What holds for an account. A tier that is no longer in the table counts as `free`."""
    limits = changed(tiers.get(tier, tiers["free"]), overrides)
    return limits.without_limits() if admin else limits


def understood(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those that this version knows, and that can be: what is stored was perhaps written by another."""
    known = {}
    for name, value in overrides.items():
        try:
            _read(name, value)
        except ValueError:
            continue
        known[name] = value
    return known


def _read(name: str, value: Any) -> Any:
    if name in COUNTS:
        return _count(value, 1 if name in ("submissions_per_minute", "output_files") else 0)
    if name in DURATIONS:
        return duration(value)
    if name == "weight":
        if type(value) not in (int, float) or not 0.001 <= value <= 1000:
            raise ValueError("must be a number from 0.001 to 1000")
        return float(value)
    if name == "pixel_steps":
        if value == NONE:
            return None
        if type(value) not in (int, float) or not 1 <= value <= 1e15:
            raise ValueError('must be a number from 1 to 1e15, or "none"')
        return float(value)
    if name == "output_bytes":
        return None if value == NONE else size(value)
    if name == "nodes":
        return _classes(value)
    raise ValueError(f"there is no such limit; known are {', '.join(NAMES)}")


def _count(value: Any, least: int) -> int | None:
    if value == NONE:
        return None
    if type(value) is not int or not least <= value <= MOST:
        raise ValueError(f'must be a whole number from {least} on, or "none"')
    return value


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > NODES_MAX:
        raise ValueError("must be a list of node classes")
    if not all(isinstance(one, str) and _CLASS.fullmatch(one) for one in value):
        raise ValueError("must be a list of node classes")
    return tuple(sorted(set(value)))


def size(value: Any) -> int:
    """Bytes, of a number or a text as `512MB`, `2GB`. Raises `ValueError`."""
    read = value if type(value) is int else None
    if type(value) is str and (found := _SIZE.fullmatch(value)):
        read = round(float(found[1]) * _BYTES[found[2]])
    if read is None or not 1 <= read <= 10**15:
        raise ValueError('must be a number of bytes, or "512MB", "2GB"')
    return read


def duration(value: Any) -> float:
    """Seconds, of a number or a text as `90m`, `24h`, `7d`. Raises `ValueError`."""
    seconds: float | None = None
    if type(value) in (int, float):
        seconds = float(value)
    elif type(value) is str and (found := _DURATION.fullmatch(value)):
        seconds = float(found[1]) * _UNITS[found[2]]
    if seconds is None or not 1 <= seconds <= LONGEST:
        raise ValueError('must be a duration: seconds, or "90m", "24h", "7d"')
    return seconds
