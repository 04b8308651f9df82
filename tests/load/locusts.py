"""Locust, run on a service: a process of its own that writes a report as HTML, its figures and its log beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.scene import ROOT

FOLDER: Final = ROOT / "tests" / "load" / "profiles"
PROFILES: Final = ("steady", "burst", "noisy")
KEYS: Final = "LOAD_KEYS"
JOBS: Final = "LOAD_JOBS"
"""As `profiles/calls.py` has it, which cannot be imported here: locust rewires the process that imports it."""
STOP_SECONDS: Final = 10
"""What callers get to end what they are at."""
AFTERWARDS_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Line:
    """Of the report: requests of one name."""

    name: str
    requests: int
    failures: int
    median: float
    p95: float
    """Milliseconds, as locust rounds them."""


def run(
    profile: str, host: str, keys: Sequence[str], *, users: int, seconds: float, jobs: int, report: Path
) -> tuple[int, list[Line]]:
    """Locust's exit code (1 if any request failed), and what it measured; `jobs`: ends after so many, 0 is no bound."""
    report.parent.mkdir(parents=True, exist_ok=True)
    figures = report.with_suffix(".json")  # as locust will name it
    figures.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "locust", "-f", str(FOLDER / f"{profile}.py"), "--headless", "--host", host,
        "--users", str(users), "--spawn-rate", str(users), "--run-time", f"{max(1, round(seconds))}s",
        "--stop-timeout", str(STOP_SECONDS), "--html", str(report), "--json-file", str(report.with_suffix("")),
        "--only-summary", "--loglevel", "WARNING",
    ]  # fmt: skip
    with report.with_suffix(".log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), KEYS: ",".join(keys), JOBS: str(jobs)},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            timeout=seconds + AFTERWARDS_SECONDS,
        )
    told: list[dict[str, Any]] = json.loads(figures.read_text()) if figures.exists() else []
    return done.returncode, sorted(map(_line, told), key=lambda line: line.name)


def _line(told: dict[str, Any]) -> Line:
    times = sorted((float(ms), int(count)) for ms, count in told["response_times"].items())
    return Line(told["name"], told["num_requests"], told["num_failures"], _at(times, 0.5), _at(times, 0.95))


def _at(times: Sequence[tuple[float, int]], share: float) -> float:
    left = share * sum(count for _, count in times)
    for ms, count in times:
        left -= count
        if left <= 0:
            return ms
    return 0.0
