"""Telemetry: what metrics and logs add to the CPU of a submission.

Both sides are `comfy-api serve` on SQLite with the backend gone, so that nothing but submissions is done. One
counts, and writes a JSON line a request at LOG_LEVEL=INFO, as in production; in the other one there is neither.
"""

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.harness import Check, Options, in_turns, median, ms, say
from benchmarks.servers import SETTINGS, Server, free_port, inventory_known, serve_command, simulator, started
from benchmarks.submissions import CONNECTIONS, WARM_UP, accepted, sending

ON = {"QUEUE_LIMIT": "10000000", "LOG_LEVEL": "INFO"}
OFF = {**ON, "LOG_LEVEL": "ERROR"}


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(9, 3), options.choose(4, 2)
    folder = options.folder / "telemetry"
    prefixes = itertools.count()
    async with AsyncExitStack() as stack:
        gone = await stack.enter_async_context(AsyncExitStack())
        backend = await gone.enter_async_context(simulator(folder / "backend"))
        telling, silent = [
            await stack.enter_async_context(_service(options, name, backend.url, silent=name == "silent"))
            for name in ("telling", "silent")
        ]
        await gone.aclose()
        sender = await stack.enter_async_context(sending(options, "telemetry"))

        async def side(name: str, number: int, server: Server) -> float:
            own = server.cpu_seconds()
            sent = await sender.ask(
                "send",
                ports=[server.port],
                prefix=f"t{next(prefixes)}",
                connections=CONNECTIONS,
                seconds=seconds,
            )
            found = (server.cpu_seconds() - own) / accepted(sent)
            say(f"telemetry: round {number + 1}, {name} {ms(found)} of CPU a submission")
            return found

        for server in (telling, silent):
            await sender.ask(
                "send",
                ports=[server.port],
                prefix=f"w{next(prefixes)}",
                connections=CONNECTIONS,
                count=WARM_UP,
            )
        with_it, without = await in_turns(
            rounds,
            lambda number: side("telling", number, telling),
            lambda number: side("silent", number, silent),
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
async def _service(options: Options, name: str, comfyui_url: str, *, silent: bool) -> AsyncIterator[Server]:
    folder, port = options.folder / "telemetry" / name, free_port()
    command = serve_command(port, folder / "data", comfyui_url)
    if silent:
        command = [sys.executable, "-m", "benchmarks.bare.silent", *map(str, command[1:])]
    environment = {**SETTINGS, **(OFF if silent else ON)}
    async with started(command, folder=folder, port=port, ready="/ping", environment=environment) as server:
        await inventory_known(server)
        yield server
