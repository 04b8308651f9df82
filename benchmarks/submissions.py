"""Submissions: durable ones a second, against bare FastAPI with the same validated body and no insert.

On SQLite, on PostgreSQL, and there with a second API process. Each is checked against a known inventory and has
an Idempotency-Key; nothing runs, for the backend that gave the inventory has gone. Beside them the least that is
durable on PostgreSQL at all, so that it is seen what the machine leaves to be gained.
"""

import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import backlog
from benchmarks.harness import Check, Options, in_turns, median, ms, say
from benchmarks.servers import Server, api, cpu_seconds, free_port, service, simulator, started
from benchmarks.stores import postgres
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.simulator.settings import DEFAULT_MODELS

CONNECTIONS: Final = 64
WARM_UP: Final = 500
AS_BARE: Final = {"QUEUE_LIMIT": "10000000", "LOG_LEVEL": "WARNING"}
"""No limit on what waits, and no line in the log for each request: bare FastAPI has neither here."""


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(5, 2), options.choose(4, 2)
    folder = options.folder / "submissions"
    prefixes = itertools.count()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(without_backend(options, "submissions"))
        database = await stack.enter_async_context(postgres())
        url = await database.database("submissions")
        await known_inventory(url)
        first, second, third = [
            await stack.enter_async_context(api(folder / f"api-{number}", DATABASE_URL=url, **AS_BARE))
            for number in range(3)
        ]
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.bare.http", str(port)]
        bare_server = await stack.enter_async_context(
            started(command, folder=folder, port=port, ready="/ping")
        )
        least_port = free_port()
        least_server = await stack.enter_async_context(
            started(
                [sys.executable, "-m", "benchmarks.bare.inserting", str(least_port), url],
                folder=folder / "least",
                port=least_port,
                ready="/ping",
            )
        )
        sender = await stack.enter_async_context(sending(options, "submissions"))

        async def side(name: str, number: int, *servers: Server) -> Sent:
            before = [one.cpu_seconds() for one in servers], cpu_seconds(database.process.pid)
            sent = await sender.ask(
                "send",
                ports=[one.port for one in servers],
                prefix=f"r{next(prefixes)}",
                connections=CONNECTIONS,
                seconds=seconds,
            )
            count = accepted(sent)
            own = sum(one.cpu_seconds() for one in servers) - sum(before[0])
            of_database = cpu_seconds(database.process.pid) - before[1]
            found = Sent(count / float(sent["seconds"]), own / count, of_database / count)
            say(
                f"submissions: round {number + 1}, {name} {found.rate:.0f} a second, CPU each {ms(found.own)}, "
                f"of the database {ms(found.of_database)}"
            )
            return found

        for one in (server, first, second, third, least_server, bare_server):
            await sender.ask(
                "send", ports=[one.port], prefix=f"w{next(prefixes)}", connections=CONNECTIONS, count=WARM_UP
            )
        sqlite, alone, together, least, bare = await in_turns(
            rounds,
            lambda number: side("on SQLite", number, server),
            lambda number: side("on PostgreSQL", number, first),
            lambda number: side("on PostgreSQL, two processes", number, second, third),
            lambda number: side("the least on PostgreSQL", number, least_server),
            lambda number: side("bare", number, bare_server),
        )
    return [
        _over_bare("durable submissions on SQLite over bare FastAPI's", sqlite, bare, 0.5),
        _over_bare(
            "durable submissions on PostgreSQL over bare FastAPI's",
            alone,
            bare,
            0.65,
            f"; two processes {_ratio(together, bare):.2f}, the least that is durable {_ratio(least, bare):.2f}",
        ),
        Check(
            "CPU a submission with two API processes over one",
            median([two.own / one.own for one, two in zip(alone, together, strict=True)]),
            1.15,
            f"{ms(median([two.own for two in together]))} to {ms(median([one.own for one in alone]))}; of the "
            f"database {ms(median([two.of_database for two in together]))} to "
            f"{ms(median([one.of_database for one in alone]))}",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Sent:
    """A round: submissions a second, and the CPU seconds of each."""

    rate: float
    own: float
    of_database: float


def _over_bare(
    promise: str, ours: Sequence[Sent], bares: Sequence[Sent], bound: float, beside: str = ""
) -> Check:
    return Check(
        promise,
        _ratio(ours, bares),
        bound,
        f"service {median([one.rate for one in ours]):.0f} a second, "
        f"bare {median([one.rate for one in bares]):.0f}{beside}",
        at_least=True,
    )


def _ratio(ours: Sequence[Sent], bares: Sequence[Sent]) -> float:
    return median([mine.rate / theirs.rate for mine, theirs in zip(ours, bares, strict=True)])


async def known_inventory(url: str) -> None:
    """A backend that nobody drives, so that requests are checked and nothing runs."""
    db = await PostgresDatabase.open(url, application="benchmark", connections=2)
    try:
        await backlog.add_backend(db, backlog.inventory_with(DEFAULT_MODELS["checkpoints"]))
    finally:
        await db.close()


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
        async with service(folder / "service", gone.url, **AS_BARE, **settings) as server:
            await backend.aclose()
            yield server


@asynccontextmanager
async def sending(options: Options, name: str) -> AsyncIterator[Server]:
    async with started(
        [sys.executable, "-m", "benchmarks.load"], folder=options.folder / name, port=free_port(), ready=None
    ) as sender:
        yield sender
