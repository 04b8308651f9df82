"""Whether a figure stays where it is: the slope of its samples, judged so that single peaks say nothing.

Theil–Sen: the median of the slopes between all pairs of samples. A third of them may be wild.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

HOUR: Final = 3600.0
PER_HOUR: Final = 0.10
"""What a figure may grow by in an hour, of its median."""
MOST: Final = 240
"""Samples that are compared with each other; more are thinned out evenly."""
Series = Sequence[tuple[float, float]]
"""Seconds and value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    begin: float
    end: float
    """Medians of the first and the last fifth."""
    growth: float
    """By the slope, over the time that is judged."""
    allowed: float
    per_hour: float
    """The slope, as a share of the median."""

    @property
    def flat(self) -> bool:
        return self.growth <= self.allowed


def slope(series: Series) -> float:
    """Of the samples, a second."""
    thin = series[:: max(1, -(-len(series) // MOST))]
    return median((v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(thin, 2) if t2 > t1)


def judge(series: Series, noise: float) -> Verdict:
    """`noise`: growth that says nothing, whatever the time. Needs three samples at different times."""
    steep, middle = slope(series), median(value for _, value in series)
    hours = (series[-1][0] - series[0][0]) / HOUR
    fifth = max(1, len(series) // 5)
    return Verdict(
        begin=median(value for _, value in series[:fifth]),
        end=median(value for _, value in series[-fifth:]),
        growth=steep * hours * HOUR,
        allowed=max(PER_HOUR * middle * hours, noise),
        per_hour=steep * HOUR / middle if middle else 0.0,
    )
