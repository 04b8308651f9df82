"""What all benchmarks share: sides measured in turns, percentiles, promises and their table.

A verdict is a ratio to a reference that was measured in the same run and in turns with it, or a size of
memory; a bare time is shown beside it, and never is the verdict. Medians and rates are compared round by round;
of 99th percentiles, which one disturbance of the machine can double, the medians over the rounds are compared.
"""

import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

MEGABYTE: Final = 1_000_000
KILOBYTE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure, and a folder of this run for whatever is written."""

    folder: Path
    quick: bool = False

    def choose(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, what was measured, and its bound; `seen` has the figures behind it."""

    promise: str
    measured: float
    bound: float
    seen: str
    unit: str = "times"
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


Benchmark = Callable[[Options], Awaitable[list[Check]]]


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank. Raises `ValueError` without values."""
    if not values:
        raise ValueError("nothing was measured")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, round(percent / 100 * len(ranked) + 0.5) - 1))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


async def in_turns(rounds: int, *sides: Callable[[int], Awaitable[T]]) -> list[list[T]]:
    """Each side once a round; every other round in the opposite order, so that drift meets all alike."""
    results: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        order = list(enumerate(sides))
        for index, side in order if number % 2 == 0 else reversed(order):
            results[index].append(await side(number))
    return results


_BEGIN: Final = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the start of the run."""
    sys.stdout.write(f"{time.monotonic() - _BEGIN:6.1f} s  {text}\n")
    sys.stdout.flush()


def line(name: str, check: Check) -> str:
    relation = "at least" if check.at_least else "at most"
    figures = f"{_figure(check.measured)} {check.unit}, {relation} {_figure(check.bound)}"
    return f"{'kept  ' if check.kept else 'MISSED'}  {name:<15}  {check.promise:<50}  {figures:<29}  {check.seen}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def table(results: Sequence[tuple[str, Check]]) -> str:
    missed = sum(not check.kept for _, check in results)
    verdict = f"{missed} of {len(results)} promises missed" if missed else f"all {len(results)} promises kept"
    return "\n".join([*(line(name, check) for name, check in results), verdict])
