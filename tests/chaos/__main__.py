"""`make chaos`: every cell of the matrix, with several seeds, and each trial; resumes what an earlier call began.

Ends with 1 if anything was lost, doubled, stuck or wrong, or if there were too few faults to tell.
"""

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from tests.chaos import campaign, report
from tests.chaos.matrix import cells
from tests.chaos.scene import FULL, ROOT, SHORT
from tests.chaos.trials.trial import all_trials

ONE_MINUTE: Final = 60.0
SCREEN: Final = Console(highlight=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"comfy-api-chaos-{os.getuid()}.jsonl",
        help="file with the runs that are done; they are not repeated while the code is the same (%(default)s)",
    )
    parser.add_argument("--afresh", action="store_true", help="forget what the state file has")
    parser.add_argument(
        "--only", metavar="TEXT", help="cells and trials whose name (`row: column`) contains this"
    )
    parser.add_argument("--seeds", type=int, default=FULL.seeds, help="runs of each cell (%(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="runs at the same time (%(default)s)")
    parser.add_argument("--minutes", type=float, default=56, help="begin no run after this (%(default)g)")
    parser.add_argument("--short", action="store_true", help="short stops, few failpoints, nothing written")
    return parser.parse_args()


def _told(result: dict[str, Any], done: int, of: int, begun: float) -> None:
    bar = "█" * round(20 * done / of) + "░" * (20 - round(20 * done / of))
    faults = sum(result["faults"].values())
    bad = bool(result["found"])
    SCREEN.print(
        f"{bar} {done}/{of} {(time.monotonic() - begun) / ONE_MINUTE:4.1f} min  "
        f"{result['row']}: {result['column']} #{result['seed']}  {faults} faults, {result['jobs']} jobs, "
        f"{result['seconds']} s  " + ("[red]NOT CLEAN[/red]" if bad else "clean")
    )
    for text in result["found"][:20]:
        SCREEN.print(f"    {text}", markup=False)
    if result["missed"]:
        SCREEN.print(f"    not come by: {', '.join(result['missed'])}", markup=False)


def main() -> int:
    given = _arguments()
    form = replace(SHORT if given.short else FULL, seeds=given.seeds)
    kind = f"{'-short' if given.short else ''}-{given.seeds}"
    mark, of_trials = f"{campaign.code()}{kind}", f"{campaign.code(trials=True)}{kind}"
    if given.afresh:
        given.state.unlink(missing_ok=True)
    wanted = [
        task
        for task in campaign.tasks(given.seeds)
        if given.only is None or given.only in f"{task[0]}: {task[1]}"
    ]
    known = campaign.known(given.state, mark) | campaign.known(given.state, of_trials)
    results = [known[task] for task in wanted if task in known]
    tasks = [task for task in wanted if task not in known]
    SCREEN.print(f"{len(wanted)} runs, {len(results)} of them done already; state in {given.state}")
    begun = time.monotonic()
    with given.state.open("a", encoding="utf-8") as state:
        until = begun + given.minutes * ONE_MINUTE
        for result in itertools.chain(
            campaign.results([task for task in tasks if campaign.alone(task)], form, 1, until),
            campaign.results([task for task in tasks if not campaign.alone(task)], form, given.jobs, until),
        ):
            results.append(result)
            _told(result, len(results), len(wanted), begun)
            if not result["found"]:  # the others are run again
                code = of_trials if result["row"] in all_trials() else mark
                state.write(json.dumps({"code": code, **result}) + "\n")
                state.flush()
    table = report.lines(results)
    SCREEN.print(report.as_text(table), markup=False)
    whole = len(results) == len(wanted)
    if not whole:
        SCREEN.print(f"{len(wanted) - len(results)} runs are left: the same command goes on from here")
    lacks = ""
    if len(table) == len(cells()) + len(all_trials()) and not given.short:
        if lacks := report.too_few(table):
            SCREEN.print(lacks, markup=False)
        else:
            report.write(table)
            SCREEN.print(f"written into {report.PAGE.relative_to(ROOT)}")
    clean = all(result["faults"] and not result["found"] for result in results)
    return int(not whole or not clean or bool(lacks))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        SCREEN.print("interrupted: the same command goes on from here")
        sys.exit(130)
