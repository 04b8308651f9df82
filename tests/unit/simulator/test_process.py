import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.unit.simulator.client import LIMIT, Client
from tests.unit.simulator.graphs import flat, text_to_image

from comfy_api_service.simulator import SimulatorSettings, serve


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A simulator of its own, and where it listens."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comfy_api_service.simulator",
        "--port",
        "0",
        "--seconds-per-load",
        "0",
        "--cleanup-seconds",
        "0",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    try:
        line = await asyncio.wait_for(started.stdout.readline(), LIMIT)
        yield started, line.decode().split()[-1]
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def test_a_killed_process_keeps_its_folder_and_nothing_else(tmp_path: Path) -> None:
    async with process("--folder", str(tmp_path)) as (first, url), Client(url) as client:
        await client.connect()
        await client.submit(flat())
        await client.until("execution_success")
        running = await client.submit(text_to_image(steps=1000))
        await client.until("progress")
        first.kill()
        await first.wait()
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/queue")
    async with process("--folder", str(tmp_path)) as (second, url), Client(url) as client:
        assert (await client.get(f"/history/{running}"))[1] == {}
        saved = {"filename": "flat_00001_.png", "type": "output"}
        assert (await client.get("/view", **saved))[0] == 200
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), LIMIT) == 0


async def test_a_process_can_be_told_to_die_and_come_back() -> None:
    async with process("--control") as (_, url), Client(url) as client:
        await client.connect()
        assert (await client.post("/_simulator/faults/restart", {"after": 0.05}))[0] == 200
        while (await client.receive()).type not in {"CLOSED", "CLOSE", "ERROR"}:
            pass
        async with asyncio.timeout(LIMIT):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    assert (await client.get("/queue"))[0] == 200
                    break


async def test_serving_goes_on_until_it_is_cancelled(unused_tcp_port: int) -> None:
    serving = asyncio.create_task(serve(SimulatorSettings(), "127.0.0.1", unused_tcp_port))
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client, asyncio.timeout(LIMIT):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                assert (await client.get("/prompt"))[0] == 200
                break
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
