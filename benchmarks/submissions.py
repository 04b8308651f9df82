"""Submissions: durable ones a second, against bare FastAPI with the same validated body and no insert.

Each is checked against a known inventory and has an Idempotency-Key; nothing runs, for the backend that gave
the inventory has gone.
"""

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from benchmarks.harness import Check, Options, in_turns, median, say
from benchmarks.servers import Server, free_port, service, simulator, started

CONNECTIONS: Final = 64
WARM_UP: Final = 500


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(6, 2), options.choose(4, 2)
    folder = options.folder / "submissions"
    prefixes = itertools.count()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(without_backend(options, "submissions"))
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.bare.http", str(port)]
        bare_server = await stack.enter_async_context(
            started(command, folder=folder, port=port, ready="/ping")
        )
        sender = await stack.enter_async_context(sending(options, "submissions"))

        async def rate(one: Server, name: str, number: int) -> float:
            sent = await sender.ask(
                "send", port=one.port, prefix=f"r{next(prefixes)}", connections=CONNECTIONS, seconds=seconds
            )
            a_second = accepted(sent) / float(sent["seconds"])
            say(f"submissions: round {number + 1}, {name} {a_second:.0f} a second")
            return a_second

        for one in (server, bare_server):
            await sender.ask(
                "send", port=one.port, prefix=f"w{next(prefixes)}", connections=CONNECTIONS, count=WARM_UP
            )
        ours, bares = await in_turns(
            rounds,
            lambda number: rate(server, "service", number),
            lambda number: rate(bare_server, "bare", number),
        )
    return [
        Check(
            "durable submissions over bare FastAPI's",
            median([mine / theirs for mine, theirs in zip(ours, bares, strict=True)]),
            0.5,
            f"service {median(ours):.0f} a second, bare {median(bares):.0f}",
            at_least=True,
        )
    ]


def accepted(sent: dict[str, Any]) -> int:
    """Raises unless every request was accepted."""
    if sent["statuses"].keys() != {"202"}:
        raise RuntimeError(f"answers other than 202: {sent['statuses']}")
    return int(sent["statuses"]["202"])


@asynccontextmanager
async def without_backend(options: Options, name: str, **settings: str) -> AsyncIterator[Server]:
    """The service after its only backend went away: it knows what the backend had, and has nowhere to run jobs."""
    folder = options.folder / name
    async with AsyncExitStack() as backend:
        gone = await backend.enter_async_context(simulator(folder / "backend"))
        async with service(folder / "service", gone.url, QUEUE_LIMIT="10000000", **settings) as server:
            await backend.aclose()
            yield server


@asynccontextmanager
async def sending(options: Options, name: str) -> AsyncIterator[Server]:
    async with started(
        [sys.executable, "-m", "benchmarks.load"], folder=options.folder / name, port=free_port(), ready=None
    ) as sender:
        yield sender
