"""What a part of the audit says."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    GOOD = "good"
    BAD = "BAD"
    NOT_KNOWN = "NOT KNOWN"
    """It could not be found out: neither good nor bad, and never silent."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    verdict: Verdict
    summary: str
    details: list[str] = field(default_factory=list)
