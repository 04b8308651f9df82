"""`make load`: a load test, on a service of its own beside simulated ComfyUI servers, or on one that runs.

profiles:
  steady    callers at an even pace, each of whom waits for a picture before asking for the next
  burst     the same, and ten times as many at once three times
  noisy     one account submits as fast as it can beside the others: what do they feel of it?
  overload  ten times what the backends can do for two minutes: everybody is answered, nothing is lost, memory stays

    make load                                           steady, a minute, a service of its own
    make load ARGS="burst --seconds 120 --users 20"     longer, with more callers
    make load ARGS="noisy --scaled"                     on two API processes, two workers and their servers
    make load ARGS="overload"                           judged: ends with 1 if a promise was broken
    make load ARGS="steady --host https://api.example.com --keys-file keys.txt"

A load test of a running service makes real jobs there, in the accounts of those keys.
"""

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from tests.chaos import scaled
from tests.chaos.matrix import SINGLE, Column, Row, Senseless
from tests.chaos.scene import ROOT, SHORT
from tests.load import locusts, overload
from tests.soak.stage import Stage

SCREEN: Final = Console(highlight=False, soft_wrap=True)
ACCOUNTS: Final = 5
OVERLOAD_SECONDS: Final = 120.0


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make load ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", nargs="?", default="steady", choices=(*locusts.PROFILES, "overload"))
    parser.add_argument("--seconds", type=float, help="how long (default: 60; overload: 120)")
    parser.add_argument("--users", type=int, default=8, help="callers (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="end when so many have ended (default: no bound)")
    parser.add_argument("--host", metavar="URL", help="a service that runs; without it, one is started")
    parser.add_argument(
        "--keys-file",
        type=Path,
        metavar="FILE",
        help="API keys for --host, one a line; `noisy` makes noise as the first",
    )
    parser.add_argument(
        "--scaled", action="store_true", help="start API processes, workers and their servers apart"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="where the HTML report goes (default: data/load/PROFILE.html)",
    )
    found = parser.parse_args(given)
    if found.profile == "overload" and found.host:
        parser.error("overload judges memory, rows and files, for which it starts the service itself")
    if found.keys_file and not found.host:
        parser.error("--keys-file is for --host")
    if found.users < 1 or (found.seconds is not None and found.seconds <= 0):
        parser.error("callers and seconds are more than 0")
    return found


@contextmanager
def _own(folder: Path, *, many: bool) -> Iterator[Stage]:
    row = Row("load", 0, dict.fromkeys(Column, Senseless("It is no row.")), scaled.STACK if many else SINGLE)
    folder.mkdir()
    with ExitStack() as stack:
        stage = Stage(folder, row, SHORT, 1, random.Random(1))
        stage.open(stack)
        stage.admit(["enterprise"] * ACCOUNTS)
        yield stage


def _keys(path: Path | None) -> list[str]:
    return [] if path is None else path.read_text(encoding="utf-8").split()


def _locust(given: argparse.Namespace, folder: Path) -> int:
    report = (given.report or ROOT / "data" / "load" / f"{given.profile}.html").resolve()
    seconds = given.seconds or 60.0
    SCREEN.print(f"{given.profile}: {given.users} callers, {seconds:g} s", markup=False)
    press = partial(
        locusts.run, given.profile, users=given.users, seconds=seconds, jobs=given.jobs, report=report
    )
    if given.host:
        code, lines = press(given.host, _keys(given.keys_file))
    else:
        with _own(folder, many=given.scaled) as stage:
            code, lines = press(stage.process(next(iter(stage.doors))).url, stage.keys)
    for line in lines:
        SCREEN.print(
            f"  {line.requests:6} x {line.name}: median {line.median:.0f} ms, p95 {line.p95:.0f} ms"
            + (f", {line.failures} FAILED" if line.failures else ""),
            markup=False,
        )
    SCREEN.print(f"report: {report}", markup=False)
    return code


def _overload(given: argparse.Namespace, folder: Path) -> int:
    plan = overload.Plan(given.seconds or OVERLOAD_SECONDS, one_machine=not given.scaled)
    outcome = overload.run(plan, folder, lambda text: SCREEN.print(text, markup=False))
    SCREEN.print(overload.told(outcome), markup=False)
    return int(bool(outcome.found))


def main(arguments: Sequence[str] | None = None) -> int:
    given = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="comfy-api-load-", ignore_cleanup_errors=True) as name:
        return (_overload if given.profile == "overload" else _locust)(given, Path(name) / "stage")


def _end(*_: object) -> None:
    raise SystemExit(130)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    sys.exit(main())
