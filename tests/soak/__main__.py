"""`make soak`: the service under steady load with a fault a minute; ends with 1 if anything is lost, doubled, stuck,
wrong, or grows.

    make soak                                        an hour, two API processes and two workers over their servers
    make soak ARGS="--one-machine"                   an hour of `comfy-api serve` over SQLite
    make soak ARGS="--minutes 10 --report soak.md"   shorter, the report as a file too
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from tests.soak import report
from tests.soak.soak import MINUTE, Plan, Soak

SCREEN = Console(highlight=False, soft_wrap=True)
INTERRUPTED = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: %(default)g)")
    parser.add_argument("--one-machine", action="store_true", help="`serve` over SQLite")
    parser.add_argument("--rate", type=float, default=5, help="submissions a second (default: %(default)g)")
    parser.add_argument(
        "--every", type=float, default=MINUTE, metavar="SECONDS", help="between faults (default: %(default)g)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of what is left to chance (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there, as Markdown")
    given = parser.parse_args()
    if min(given.minutes, given.rate, given.every) <= 0:
        parser.error("minutes, rate and seconds between faults are more than 0")
    return given


def main() -> int:
    given = _arguments()
    soak = Soak(
        Plan(given.minutes * MINUTE, given.one_machine, given.rate, given.every, given.seed),
        lambda text: SCREEN.print(text, markup=False),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: soak.stop.set())
    with tempfile.TemporaryDirectory(prefix="comfy-api-soak-", ignore_cleanup_errors=True) as folder:
        done = soak.run(Path(folder))
    text = report.page(done)
    SCREEN.print(f"\n{text}", markup=False)
    if given.report is not None:
        given.report.write_text(text, encoding="utf-8")
        SCREEN.print(f"written to {given.report}")
    return INTERRUPTED if done.interrupted else int(not done.clean)


if __name__ == "__main__":
    sys.exit(main())
