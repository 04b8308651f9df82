"""The short form of the campaign: some cells, once, with short stops. `make chaos` runs all of them."""

from pathlib import Path

import pytest
from tests.chaos.matrix import Column, cells, row_of
from tests.chaos.run import run
from tests.chaos.scene import SHORT

CHOSEN = [
    ("API and worker", Column.KILLED),
    ("SQLite", Column.KILLED),
    ("ComfyUI", Column.STOPPED),
    ("network", Column.HALVED),
    ("disk", Column.REFUSED),
    ("worker", Column.KILLED),
    ("Redis", Column.LOST),
]


@pytest.mark.parametrize(("row", "column"), CHOSEN)
def test_nothing_is_lost_doubled_or_stuck(tmp_path: Path, row: str, column: Column) -> None:
    outcome = run(tmp_path / "run", row_of(row), column, cells()[row, column], SHORT, seed=1)
    assert outcome.found == []
    assert outcome.faults
    assert outcome.jobs > 4
