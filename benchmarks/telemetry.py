"""Telemetry: what metrics and logs add to the CPU of a submission.

`comfy-api serve` on SQLite with the backend gone, so that nothing but submissions is done. In turns it counts, and
writes a JSON line a request at LOG_LEVEL=INFO, as in production, and does neither.
"""

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.bare.silent import SILENT, TELLING
from benchmarks.harness import Check, Options, in_turns, median, ms, say
from benchmarks.servers import SETTINGS, Server, free_port, inventory_known, serve_command, simulator, started
from benchmarks.submissions import CONNECTIONS, WARM_UP, accepted, sending


async def run(options: Options) -> list[Check]:
    rounds = options.choose(160, 30)
    seconds = 0.5  # short turns, for what else the machine does changes slowly
    folder = options.folder / "telemetry"
    prefixes = itertools.count()
    async with AsyncExitStack() as stack:
        gone = await stack.enter_async_context(AsyncExitStack())
        backend = await gone.enter_async_context(simulator(folder / "backend"))
        server = await stack.enter_async_context(_service(options, backend.url))
        await gone.aclose()
        sender = await stack.enter_async_context(sending(options, "telemetry"))

        async def side(name: str, number: int) -> float:
            server.process.send_signal(SILENT if name == "silent" else TELLING)
            own = server.cpu_seconds()
            sent = await sender.ask(
                "send",
                ports=[server.port],
                prefix=f"t{next(prefixes)}",
                connections=CONNECTIONS,
                seconds=seconds,
            )
            found = (server.cpu_seconds() - own) / accepted(sent)
            say(f"telemetry: round {number + 1}, {name} {found * 1e6:.1f} µs of CPU a submission")
            return found

        await sender.ask("send", ports=[server.port], prefix="warm", connections=CONNECTIONS, count=WARM_UP)
        with_it, without = await in_turns(
            rounds,
            lambda number: side("telling", number),
            lambda number: side("silent", number),
        )
    return [
        Check(
            "CPU of a submission with metrics and logs, over without",
            median([one / other for one, other in zip(with_it, without, strict=True)]),
            1.05,
            f"{ms(median(with_it))} to {ms(median(without))}",
        )
    ]


@asynccontextmanager
async def _service(options: Options, comfyui_url: str) -> AsyncIterator[Server]:
    folder, port = options.folder / "telemetry", free_port()
    command = [sys.executable, "-m", "benchmarks.bare.silent"]
    command += map(str, serve_command(port, folder / "data", comfyui_url)[1:])
    environment = {**SETTINGS, "QUEUE_LIMIT": "10000000", "LOG_LEVEL": "INFO"}
    async with started(command, folder=folder, port=port, ready="/ping", environment=environment) as server:
        await inventory_known(server)
        yield server
