"""A cell, run once: start, load, faults, healing, end, judgement."""

import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.proof import jobs_of, judge
from tests.chaos.scene import LIMIT, Form, Scene, scene
from tests.support.checker import Kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed; the counts are of what really happened."""

    row: str
    column: str
    seed: int
    jobs: int
    faults: dict[str, int]
    signals: int
    errors: dict[str, int]
    """Named errors that callers were answered, by code."""
    deaf: int
    """Answers that callers did not get, or not whole."""
    lost: int
    doubled: int
    stuck: int
    wrong: int
    found: list[str]
    missed: list[str]
    """Failpoints that nothing came by."""
    seconds: float

    @property
    def clean(self) -> bool:
        return not self.found and sum(self.faults.values()) > 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(folder: Path, row: Row, column: Column, cell: Cell, form: Form, seed: int) -> Outcome:
    """Raises AssertionError if the service does not start or end as it should."""
    begun = time.monotonic()
    with scene(folder, row, form, seed, f"{row.name}/{column}") as on:
        on.callers.start()
        assert on.callers.until_acknowledged(4, LIMIT), "no submission is acknowledged"
        cell.inject(on)
        on.heal()
        assert on.callers.until_acknowledged(2, LIMIT), "no submission is acknowledged after the fault"
        on.callers.stop()
        return ended(on, cell, (row.name, str(column)), begun)


def ended(on: Scene, cell: Cell, place: tuple[str, str], begun: float) -> Outcome:
    """The end of a run whose callers have gone home: what is open is done, the service stops, all is judged.

    `place`: row and column, or what stands there in the table.
    """
    on.until(lambda: on.open_jobs() == 0, pause=0.1)
    for process in on.processes():
        process.popen.send_signal(signal.SIGTERM)
    codes = [process.popen.wait(LIMIT) for process in on.processes()]
    found = judge(on, cell)
    texts = [f"{fault.kind}: {fault.text}" for fault in found]
    if any(codes):
        texts.append(f"wrong: the service ended with {codes}")
    counts = {kind: sum(fault.kind is kind for fault in found) for kind in Kind}
    return Outcome(
        row=place[0],
        column=place[1],
        seed=on.seed,
        jobs=jobs_of(on),
        faults=dict(on.faults),
        signals=on.signals,
        errors=dict(on.callers.told.errors),
        deaf=len(on.callers.told.deaf),
        lost=counts[Kind.LOST],
        doubled=counts[Kind.DOUBLED],
        stuck=counts[Kind.STUCK],
        wrong=counts[Kind.WRONG] + any(codes),
        found=texts,
        missed=on.missed,
        seconds=round(time.monotonic() - begun, 1),
    )
