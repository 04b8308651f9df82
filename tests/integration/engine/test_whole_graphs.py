"""Graphs of any form through the engine: their outputs in order, whichever way they come."""

from pathlib import Path

from tests.support.checker import check
from tests.support.graphs import flat_picture, submit_graph
from tests.support.stack import FAST, ended, online, running

from comfy_api_service.domain.job import State
from comfy_api_service.simulator import Simulator


async def test_artifacts_stand_in_the_order_of_their_nodes(tmp_path: Path) -> None:
    """A real server runs output nodes in the order of a set: another one in each process."""
    graph = flat_picture()
    graph["10"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        done = await ended(service, await submit_graph(service, graph))
        assert [artifact.node_id for artifact in done.artifacts] == ["2", "10"]
        sim.faults.silence_socket()
        told_by_history = await ended(service, await submit_graph(service, graph))
        assert [artifact.node_id for artifact in told_by_history.artifacts] == ["2", "10"]
    check(tmp_path)


async def test_a_picture_sent_by_the_socket_is_a_result_like_any_other(tmp_path: Path) -> None:
    graph = flat_picture("SaveImageWebsocket", color=255)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        for _ in range(2):
            done = await ended(service, await submit_graph(service, graph))
            assert (done.state, done.error) == (State.SUCCEEDED, None)
            assert [(one.kind, one.media_type, one.width) for one in done.artifacts] == [
                ("image", "image/png", 64)
            ]
    check(tmp_path)
