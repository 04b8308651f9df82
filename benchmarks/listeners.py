"""Listeners: what 5 000 WebSockets that wait cost, how late an event reaches its own, and what a deaf one does
to the others, against a bare hub of the same server.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import KILOBYTE, MEGABYTE, Check, Options, in_turns, median, ms, say
from benchmarks.servers import Server, free_port, inventory_known, simulator, started
from benchmarks.submissions import CONNECTIONS, accepted, sending

RATE: Final = 1000.0
"""Events a second."""
WARM_UP: Final = 50
DEAF: Final = 10
"""Jobs for the listeners that stop reading, one a round at most."""


@dataclass(frozen=True, slots=True)
class Side:
    server: Server
    ears: Server
    names: list[str]


async def run(options: Options) -> list[Check]:
    count, rounds, seconds = options.choose(5000, 1000), options.choose(5, 2), options.choose(4, 3)
    async with AsyncExitStack() as stack:
        server, names = await stack.enter_async_context(_service(options, count))
        ours = Side(server, await stack.enter_async_context(_ears(options)), names[WARM_UP + DEAF :])
        hub = Side(
            await stack.enter_async_context(_hub(options)),
            await stack.enter_async_context(_ears(options)),
            [f"name-{number}" for number in range(count)],
        )
        await ours.ears.ask("listen", port=server.port, names=names[:WARM_UP])
        before = server.memory()
        await ours.ears.ask("listen", port=server.port, names=ours.names)
        each = (server.memory() - before) / len(ours.names)
        say(f"listeners: {len(ours.names)} listen to the service, {each / KILOBYTE:.1f} kB each")
        await hub.ears.ask("listen", port=hub.server.port, names=hub.names)
        say(f"listeners: {len(hub.names)} listen to the bare hub")
        waiting: list[float] = []

        async def quiet(side: Side, name: str, number: int) -> dict[str, Any]:
            await side.server.ask("publish", names=side.names, rate=RATE, seconds=seconds)
            heard = await _heard(side, int(RATE * seconds))
            say(f"listeners: round {number + 1}, {name} p50 {ms(heard['p50'])}, p99 {ms(heard['p99'])}")
            return heard

        async def beside_a_deaf_one(number: int) -> dict[str, Any]:
            deaf = names[WARM_UP + number]
            await ours.ears.ask("stop_reading", port=server.port, name=deaf)
            await server.ask("fill", name=deaf)
            answer = await server.ask("publish", names=ours.names, rate=RATE, seconds=seconds, stuck=deaf)
            heard = await _heard(ours, int(RATE * seconds))
            await ours.ears.ask("leave")
            waiting.append(answer["waiting"])
            say(
                f"listeners: round {number + 1}, beside one that stopped reading p50 {ms(heard['p50'])}, "
                f"p99 {ms(heard['p99'])}; {answer['waiting'] / KILOBYTE:.0f} kB wait for that one"
            )
            return heard

        bare, heard, beside = await in_turns(
            rounds,
            lambda number: quiet(hub, "bare hub", number),
            lambda number: quiet(ours, "service", number),
            beside_a_deaf_one,
        )
    late, base, disturbed = ([one["p99"] for one in side] for side in (heard, bare, beside))
    return [
        Check(
            f"memory of each of {len(ours.names)} listeners",
            each / KILOBYTE,
            45,
            "growth of the process",
            unit="kB",
        ),
        Check(
            "event to listener, p99 over a bare hub's",
            median(late) / median(base),
            5,
            f"service {ms(median(late))}, bare {ms(median(base))}",
        ),
        Check(
            "the others' p99 beside one that stopped reading",
            median(disturbed) / median(late),
            2,
            f"with it {ms(median(disturbed))}, without {ms(median(late))}",
        ),
        Check("what waits for that one", max(waiting) / MEGABYTE, 1, "in mailbox and transport", unit="MB"),
    ]


async def _heard(side: Side, published: int) -> dict[str, Any]:
    """Raises unless every event arrived."""
    heard: dict[str, Any] = await side.ears.ask("latencies", expected=published)
    if heard["events"] < published:
        raise RuntimeError(f"of {published} events {heard['events']} arrived")
    return heard


@asynccontextmanager
async def _service(options: Options, count: int) -> AsyncIterator[tuple[Server, list[str]]]:
    """The service with its publisher and with jobs that wait, for its backend has gone."""
    folder, port = options.folder / "listeners", free_port()
    async with AsyncExitStack() as backend:
        gone = await backend.enter_async_context(simulator(folder / "backend"))
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "benchmarks.publisher",
            str(port),
            folder / "data",
            gone.url,
        ]
        async with (
            started(command, folder=folder, port=port, ready="/ping") as server,
            sending(options, "listeners") as sender,
        ):
            await inventory_known(server)
            await backend.aclose()
            wanted = {
                "prefix": "l",
                "connections": CONNECTIONS,
                "count": count + WARM_UP + DEAF,
                "keep_ids": True,
            }
            sent = await sender.ask("send", ports=[port], **wanted)
            accepted(sent)
            yield server, sent["ids"]


@asynccontextmanager
async def _ears(options: Options) -> AsyncIterator[Server]:
    command = [sys.executable, "-m", "benchmarks.ears"]
    async with started(command, folder=options.folder / "ears", port=free_port(), ready=None) as ears:
        yield ears


@asynccontextmanager
async def _hub(options: Options) -> AsyncIterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare.hub", str(port)]
    async with started(command, folder=options.folder / "hub", port=port, ready="/ping") as hub:
        yield hub
