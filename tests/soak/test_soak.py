"""The soak's own judgement, and a short one whole. `make soak` runs an hour."""

import random
from pathlib import Path

import pytest
from tests.soak import faults, report
from tests.soak.flatness import HOUR, judge
from tests.soak.samples import NOISE
from tests.soak.soak import Plan, Soak


def samples(per_hour: float, *, hours: float = 0.5, level: float = 150.0) -> list[tuple[float, float]]:
    """A figure that grows so much, with noise, and with peaks in a tenth of the samples."""
    rng = random.Random(7)
    return [
        (
            float(at),
            level + per_hour * at / HOUR + rng.gauss(0.0, 1.0) + (60.0 if rng.random() < 0.1 else 0.0),
        )
        for at in range(0, int(hours * HOUR), 5)
    ]


def test_what_stays_is_flat_whatever_peaks_it_has() -> None:
    verdict = judge(samples(0.0), NOISE["memory"])
    assert verdict.flat
    assert abs(verdict.growth) < 1.0


@pytest.mark.parametrize(("per_hour", "flat"), [(10.0, True), (20.0, False), (300.0, False), (-50.0, True)])
def test_growth_beyond_a_tenth_an_hour_is_found_below_peaks(per_hour: float, flat: bool) -> None:
    verdict = judge(samples(per_hour), NOISE["memory"])
    assert verdict.flat is flat
    assert verdict.growth == pytest.approx(per_hour / 2, abs=1.0)


def test_a_step_in_the_middle_is_no_peak() -> None:
    handles = [(float(at), 60.0 if at < 900 else 80.0) for at in range(0, 1800, 5)]
    assert not judge(handles, NOISE["handles"]).flat


def test_those_who_are_judged_live_to_the_end() -> None:
    for one in faults.SCALED:
        assert not one.ends_lives
    assert not set(faults.LIVING) & set(faults.VICTIMS)
    assert any(one.ends_lives for one in faults.SINGLE)


def test_a_short_one_is_clean_and_told_whole(tmp_path: Path) -> None:
    """A soak of seconds, with load of every kind."""
    lines: list[str] = []
    plan = Plan(
        seconds=4.0, one_machine=True, every=3.0, sample_seconds=0.1, told_every=2.0, only="callers cut off",
        backends=1,
    )  # fmt: skip
    done = Soak(plan, lines.append).run(tmp_path / "soak")
    assert done.found == []
    assert done.clean
    assert done.outcome.jobs > 6
    assert done.recoveries["callers cut off"]
    assert {measure for _, measure in done.verdicts} == {"memory", "handles", "threads", "connections"}
    assert any("jobs" in line for line in lines)
    page = report.page(done)
    assert page.startswith("# Soak: CLEAN")
    assert "| callers cut off" in page
    assert "| jobs " in page
