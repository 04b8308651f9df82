"""A trial: a scene as the cells have it, a story that is longer than a cell, the same judgement at its end."""

import importlib
import pkgutil
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.chaos import trials
from tests.chaos.matrix import Cell, Column, Row, Senseless, Stack
from tests.chaos.run import Outcome, ended
from tests.chaos.scene import Form, Scene


@dataclass(frozen=True, slots=True)
class Trial:
    """What is run once beside the cells."""

    name: str
    way: str
    """The two are what the table shows where a cell has its row and its column."""
    place: int
    """Order in the table, below the matrix."""
    stack: Stack
    cell: Cell
    """What is done, which starts the callers and stops them, and what may come of it beside success."""
    scene: type[Scene] = Scene
    alone: bool = False
    """What it says of time would be said of the runs beside it."""

    def run(self, folder: Path, form: Form, seed: int) -> Outcome:
        """Raises AssertionError if it does not go as it should."""
        begun = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        row = Row(self.name, self.place, dict.fromkeys(Column, Senseless("It is no row.")), self.stack)
        with ExitStack() as stack:
            on = self.scene(folder, row, form, seed, random.Random(f"{self.name}/{seed}"))
            on.open(stack)
            self.cell.inject(on)
            on.heal()
            return ended(on, self.cell, (self.name, self.way), begun)


@cache
def all_trials() -> dict[str, Trial]:
    """Every trial by its name, in order."""
    modules = [
        importlib.import_module(f"{trials.__name__}.{module.name}")
        for module in pkgutil.iter_modules(trials.__path__)
    ]
    found = [module.TRIAL for module in modules if hasattr(module, "TRIAL")]
    return {trial.name: trial for trial in sorted(found, key=lambda trial: trial.place)}
