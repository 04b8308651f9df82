"""`python -m benchmarks [--quick] [NAME …]`: measures, shows the table, ends with 1 if a promise was missed."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks import (
    affinity,
    authentication,
    busy,
    counting,
    drive,
    end_to_link,
    fairness,
    link_scaled,
    listeners,
    memory,
    overload,
    scale,
    start,
    submissions,
    submit_to_start,
    telemetry,
)
from benchmarks.harness import Benchmark, Check, Options, line, say, table

ALL: Final[Mapping[str, Benchmark]] = {
    "busy": busy.run,
    "end_to_link": end_to_link.run,
    "submit_to_start": submit_to_start.run,
    "submissions": submissions.run,
    "authentication": authentication.run,
    "listeners": listeners.run,
    "memory": memory.run,
    "start": start.run,
    "scale": scale.run,
    "drive": drive.run,
    "counting": counting.run,
    "fairness": fairness.run,
    "affinity": affinity.run,
    "link_scaled": link_scaled.run,
    "overload": overload.run,
    "telemetry": telemetry.run,
}
LIMIT_SECONDS: Final = 900.0
"""The longest that one benchmark may take."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; the bounds stay")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in ALL]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    return given


async def _measure(names: list[str], options: Options) -> list[tuple[str, Check]]:
    results: list[tuple[str, Check]] = []
    for name in names:
        say(f"{name} …")
        async with asyncio.timeout(LIMIT_SECONDS):
            checks = await ALL[name](options)
        for check in checks:
            say(line(name, check))
            results.append((name, check))
    return results


def _stop(*_: object) -> None:
    raise SystemExit(130)


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="comfy-benchmarks-") as folder:
        results = asyncio.run(_measure(given.names or list(ALL), Options(Path(folder), given.quick)))
    sys.stdout.write(f"\n{table(results)}\n")
    return 0 if all(check.kept for _, check in results) else 1


if __name__ == "__main__":
    sys.exit(main())
