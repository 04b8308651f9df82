"""The short forms of the trials beside the matrix. `make chaos` runs them as long as they are meant to be."""

from pathlib import Path

import pytest
from tests.chaos.scene import SHORT
from tests.chaos.trials.trial import all_trials


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", all_trials())
def test_nothing_is_lost_doubled_or_stuck(tmp_path: Path, name: str) -> None:
    outcome = all_trials()[name].run(tmp_path / "run", SHORT, seed=1)
    assert outcome.found == []
    assert outcome.signals
    assert outcome.jobs > 4
