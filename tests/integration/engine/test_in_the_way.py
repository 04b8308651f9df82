"""A backend whose running prompt cannot be got rid of: it answers, so only what it does not do tells."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.checker import check
from tests.support.graphs import flat_picture, submit_graph
from tests.support.stack import FAST, ended, job, online, reached, running, until

from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker import contact, oversight

DEADLY = flat_picture(_salt=["99", 0])
"""Kills the worker of real servers, and stays in `queue_running`."""


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(oversight, "ZOMBIE_SECONDS", 0.5)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(oversight, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(oversight, "UNHEEDED_SECONDS", 0.5)
    monkeypatch.setattr(contact, "SUSPICION_SECONDS", 1.0)


async def test_a_prompt_of_ours_that_heeds_nothing_keeps_its_backend_out(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        killer = await submit_graph(service, DEADLY, max_attempts=1)
        assert (await ended(service, killer)).state is State.FAILED
        waiting = await submit_graph(service, flat_picture())
        await _looked(sim, 12)
        assert (await service.pool.refresh()).backends[0].state is BackendState.DEGRADED
        assert (await job(service, waiting)).attempt <= 1
        await sim.faults.restart()
        assert (await ended(service, waiting)).state is State.SUCCEEDED
    check(tmp_path)


async def test_behind_somebody_elses_endless_prompt_one_wait_is_enough(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url, stall_timeout=1.0) as service:
        await online(service)
        await _post(sim, DEADLY)
        waiting = await submit_graph(service, flat_picture())
        await reached(service, waiting, State.DISPATCHED)
        await reached(service, waiting, State.READY)
        await _looked(sim, 12)
        assert (await job(service, waiting)).attempt == 1
        await sim.faults.restart()
        done = await ended(service, waiting)
        assert (done.state, done.attempt, done.executed) == (State.SUCCEEDED, 2, 1)
    check(tmp_path)


async def test_a_backend_is_used_again_when_the_prompt_in_the_way_is_gone(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url, stall_timeout=1.0) as service:
        await online(service)
        sim.faults.stall()
        await _post(sim, flat_picture("SaveImageWebsocket"))  # its step is held
        waiting = await submit_graph(service, flat_picture())
        await reached(service, waiting, State.DISPATCHED)
        await reached(service, waiting, State.READY)
        await _looked(sim, 6)
        sim.faults.stall(on=False)
        assert (await ended(service, waiting)).state is State.SUCCEEDED
    check(tmp_path)


async def _looked(sim: Simulator, times: int) -> None:
    """Wait until the service has read the backend's queue so many times more."""

    def looks() -> int:
        return sum(request.path == "/queue" and request.method == "GET" for request in sim.record.requests)

    begun = looks()
    await until(lambda: looks() >= begun + times)


async def _post(sim: Simulator, graph: dict[str, Any]) -> None:
    """A prompt of somebody else's."""
    async with httpx2.AsyncClient() as http:
        answer = await http.post(f"{sim.url}/prompt", json={"prompt": graph, "client_id": "somebody"})
        assert answer.status_code == 200
