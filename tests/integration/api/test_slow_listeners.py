"""A listener that does not read, beside one that does."""

import asyncio
from pathlib import Path

import httpx2
import pytest
from tests.support.api import SMALL, serving
from tests.support.stack import FAST, online, reached, running
from websockets.asyncio.client import connect

from comfy_api_service.api import listening
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.events import Preview
from comfy_api_service.domain.job import State
from comfy_api_service.signals.base import Note
from comfy_api_service.simulator import Simulator


async def test_a_listener_that_stops_reading_is_let_go_and_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SEND_SECONDS", 1.0)
    async with Simulator(FAST) as sim, running(tmp_path, sim.url) as service:
        await online(service)
        sim.faults.stall()
        signals = service.services.watcher._signals
        gauge = service.services.metrics.websockets._value
        async with serving(service.app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
            job_id = (await client.post("/api/v1/jobs", json=SMALL)).json()["job_id"]
            await reached(service, job_id, State.EXECUTING)
            address = f"{url}/ws/jobs/{job_id}".replace("http", "ws", 1)
            async with connect(address, max_size=None) as reads, connect(address, max_queue=1, max_size=None):
                await reads.recv()
                waits = []
                async with asyncio.timeout(20):
                    while gauge.get() == 2:
                        began = asyncio.get_running_loop().time()
                        signals.publish(Note(job_id, LOCAL.id, 1, Preview("image/jpeg", bytes(4 * 2**20))))
                        while isinstance(await reads.recv(), str):
                            pass
                        waits.append(asyncio.get_running_loop().time() - began)
                assert gauge.get() == 1
                assert max(waits) < 0.9, "the one that reads waited for the one that does not"
