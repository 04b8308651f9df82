"""The estimated start: from counters and measured durations, within a quarter of what happens."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.checker import check
from tests.support.stack import FAST, ended, online, order, running, submit

from comfy_api_service.simulator import Simulator

STEPS = 8
STEADY = replace(FAST, seconds_per_step=0.025)


@pytest.mark.sqlite
async def test_the_estimated_start_of_fifty_jobs_is_within_a_quarter(tmp_path: Path) -> None:
    async with Simulator(STEADY) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        measured = [(await submit(service, order(seed=n, steps=STEPS))).job_id for n in range(20)]
        for job_id in measured:
            await ended(service, job_id)
        await service.pool.refresh()
        accepted = [await submit(service, order(seed=100 + n, steps=STEPS)) for n in range(50)]
        assert [a.place.position for a in accepted[2:] if a.place] == sorted(
            a.place.position for a in accepted[2:] if a.place
        )
        one_job = STEPS * STEADY.seconds_per_step
        wrong = []
        for one in accepted:
            assert one.place is not None
            assert one.place.start_at is not None
            done = await ended(service, one.job_id)
            assert done.started_at is not None
            estimated, real = one.place.start_at - done.queued_at, done.started_at - done.queued_at
            if abs(estimated - real) > max(0.25 * real, one_job):
                wrong.append((round(estimated, 2), round(real, 2)))
        assert not wrong
    check(tmp_path)
