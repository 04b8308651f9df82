"""Several simulated backends in one process of their own, so that the machine's processors are left to the others.

`python -m benchmarks.fleet SETTINGS` where SETTINGS is a JSON object with `ports` and fields of the simulator's
settings. Each offers its record at its own port.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks import orders
from benchmarks.png import noise
from benchmarks.servers import HOST, Server, free_port, started
from comfy_api_service.simulator import Simulator, SimulatorSettings


@asynccontextmanager
async def backends(folder: Path, count: int, **settings: Any) -> AsyncIterator[list[Server]]:
    """So many, each at a port of its own; `settings` are the simulator's. Pictures have 500 kB."""
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "benchmarks.fleet", orjson.dumps({"ports": ports, **settings}).decode()]
    async with started(command, folder=folder, port=ports[-1], ready="/system_stats") as process:
        yield [Server(process.process, port) for port in ports]


async def main() -> None:
    given: dict[str, Any] = orjson.loads(sys.argv[1])
    ports: list[int] = given.pop("ports")
    settings = SimulatorSettings(
        **{
            "control": True,
            "previews": False,
            "seconds_per_load": 0.0,
            "cleanup_seconds": 0.0,
            "fixed_output": noise(),
            **given,
        }
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with AsyncExitStack() as stack:
        for port in ports:
            await stack.enter_async_context(Simulator(settings, host=HOST, port=port))
        await stopped.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        orders.run(main)
