"""A worker that was taken for dead begins anew, whatever fails meanwhile, and proves its life once."""

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.checker import check
from tests.support.stack import FAST, ended, online, running, submit, until

from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker.fleet import Fleet


def proving() -> int:
    """How many threads prove a worker's life."""
    return [thread.name for thread in threading.enumerate()].count("lease")


class Failing:
    """A fleet of which one act fails the first time that the worker asks for it."""

    def __init__(self, fleet: Fleet, name: str, fault: Exception) -> None:
        self._fleet = fleet
        self._name = name
        self._fault = fault
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._name and not self.failed else getattr(self._fleet, name)

    async def _fail(self) -> None:
        self.failed = True
        raise self._fault


@pytest.mark.parametrize(
    ("name", "fault"),
    [("look", Unavailable("It is away.")), ("abandon", RuntimeError("a fault of the code"))],
)
async def test_a_revival_that_fails_is_tried_again(
    tmp_path: Path, name: str, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        before = proving()
        driver = service.worker.fleet.drivers[0]
        fleet = Failing(service.worker.fleet, name, fault)
        monkeypatch.setattr(service.worker, "fleet", fleet)
        service.worker._replaced.set()
        await until(lambda: fleet.failed and service.worker.fleet.drivers not in ([], [driver]))
        await until(lambda: proving() == before)
        await ended(service, (await submit(service)).job_id)
    check(tmp_path)
