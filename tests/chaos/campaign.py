"""The campaign: all runs of all cells and trials, some at a time, each in a process of its own; what is done is kept in
a file.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.chaos import report
from tests.chaos.matrix import Column, cells, row_of
from tests.chaos.run import run
from tests.chaos.scene import ROOT, Form
from tests.chaos.trials.trial import all_trials

BESIDE: Final = ("campaign.py", "report.py", "__main__.py")
"""Files that no result depends on."""
TRIALS: Final = ROOT / "tests" / "chaos" / "trials"
Task = tuple[str, str, int]
"""Row, column, seed; or a trial's name and way."""


def code(*, trials: bool = False) -> str:
    """What the results belong to: the service and the cells, or also the trials, as they are now."""
    content = hashlib.sha256()
    for folder in ("src", "tests/chaos", "tests/support"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name in BESIDE or path.name.startswith("test_"):
                continue
            if trials or not path.is_relative_to(TRIALS):
                content.update(path.read_bytes())
    return content.hexdigest()[:16]


def tasks(seeds: int) -> list[Task]:
    """All that there is to be run: first what takes longest, then each cell with its first seed, then the next."""
    once = [(trial.name, trial.way, 0) for trial in all_trials().values()]
    return once + [(row, str(column), seed) for seed in range(seeds) for row, column in cells()]


def alone(task: Task) -> bool:
    """Whether nothing else may run beside it."""
    trial = all_trials().get(task[0])
    return trial is not None and trial.alone


def known(state: Path, mark: str) -> dict[Task, dict[str, Any]]:
    """Runs of this very code that an earlier call made."""
    if not state.exists():
        return {}
    found = {}
    for line in state.read_text().splitlines():
        one = json.loads(line)
        if one["code"] == mark:
            found[one["row"], one["column"], one["seed"]] = one
    return found


def attempt(task: Task, form: Form) -> dict[str, Any]:
    """One run in a process of its own; whatever it raises is a result."""
    row, column, seed = task
    trial = all_trials().get(row)
    with tempfile.TemporaryDirectory(prefix="comfy-api-chaos-", ignore_cleanup_errors=True) as folder:
        try:
            if trial is not None:
                return trial.run(Path(folder), form, seed).as_json()
            cell = cells()[row, Column(column)]
            return run(Path(folder), row_of(row), Column(column), cell, form, seed).as_json()
        except Exception:  # noqa: BLE001 - told with the others
            return {
                "row": row,
                "column": column,
                "seed": seed,
                **dict.fromkeys(report.COUNTS, 0),
                "faults": {},
                "wrong": 1,
                "found": [traceback.format_exc()],
                "missed": [],
                "seconds": 0.0,
            }


def _interruptible() -> None:
    """Also where a shell began the campaign in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _ended_with(pool: ProcessPoolExecutor) -> Iterator[None]:
    """An interrupted campaign interrupts its runs, so that they end what they started."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple((pool._processes or {}).values()):
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        raise


def results(tasks: list[Task], form: Form, jobs: int, until: float) -> Iterator[dict[str, Any]]:
    """As they come; nothing is begun after `until`."""
    waiting = iter(tasks)
    context = multiprocessing.get_context("spawn")
    running: set[Future[dict[str, Any]]] = set()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_interruptible) as pool, _ended_with(pool):
        while True:
            while len(running) < jobs and time.monotonic() < until:
                task = next(waiting, None)
                if task is None:
                    break
                running.add(pool.submit(attempt, task, form))
            if not running:
                return
            done = next(as_completed(running))
            running.discard(done)
            yield done.result()
