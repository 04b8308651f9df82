"""End to link: from the end of a prompt to `done` with a readable link at a client, against a bare `/view`.

Each job has a WebSocket of its own. The bytes behind each link are fetched as soon as it is there, and compared
with what the job says of them; the time stands at the arrival of `done`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from benchmarks import client, record
from benchmarks.bare import protocol
from benchmarks.client import Client
from benchmarks.harness import Check, Options, in_turns, median, ms, percentile, say
from benchmarks.servers import service, simulator

WAITING: Final = 200
SETTLING: Final = 5
SPARE: Final = 80
"""Jobs that may end before all are followed; they do not count."""
PROMPT_SECONDS: Final = 0.05
SMALLEST_BYTES: Final = 490_000
LIMIT_SECONDS: Final = 60.0


async def run(options: Options) -> list[Check]:
    rounds, counted = options.choose(6, 2), options.choose(100, 60)
    folder = options.folder / "end_to_link"
    async with (
        simulator(folder / "bare", seconds_per_prompt=PROMPT_SECONDS) as bare_backend,
        simulator(folder / "backend", seconds_per_prompt=PROMPT_SECONDS) as backend,
    ):

        async def bare(number: int) -> list[float]:
            async with protocol.connected(bare_backend.url) as one:
                await one.keep_filled(counted + SETTLING)
            views = one.views[SETTLING:]
            say(f"end_to_link: round {number + 1}, bare /view p50 {ms(median(views))}")
            return views

        async def served(number: int) -> list[float]:
            before = await record.read(backend)
            async with (
                service(folder / f"service-{number}", backend.url) as server,
                client.connected(server.url) as one,
            ):
                arrivals, since = await arrivals_of(one, counted)
            ends = [execution.ended for execution in (await record.read(backend)).since(before)]
            taken = [arrived - ended for arrived, ended in zip(arrivals, ends, strict=False) if ended > since]
            say(
                f"end_to_link: round {number + 1}, service p50 {ms(median(taken))}, p99 {ms(percentile(taken, 99))}"
            )
            return taken[:counted]

        views, taken = await in_turns(rounds, bare, served)
    return compared(views, taken, "a bare /view's")


def compared(
    bare: Sequence[Sequence[float]], taken: Sequence[Sequence[float]], reference: str
) -> list[Check]:
    """The promises, from the seconds of both sides by round."""
    bases = [percentile(one, 50) for one in bare]
    middles = [percentile(one, 50) for one in taken]
    lates = [percentile(one, 99) for one in taken]
    return [
        Check(
            f"end of prompt to link, p50 over {reference}",
            median([ours / base for ours, base in zip(middles, bases, strict=True)]),
            3.0,
            f"service {ms(median(middles))}, bare {ms(median(bases))}",
        ),
        Check(
            "end of prompt to link, p99 over that p50",
            median(lates) / median(bases),
            6.0,
            f"service {ms(median(lates))}",
        ),
    ]


async def arrivals_of(one: Client, counted: int) -> tuple[list[float], float]:
    """When `done` of the first jobs came, in order, and since when all jobs were followed; monotonic seconds.

    As many jobs as shall wait are left over at the end.
    """
    loop = asyncio.get_running_loop()
    arrivals: list[float] = []
    checks: list[asyncio.Task[None]] = []
    enough: asyncio.Future[None] = loop.create_future()
    following = [asyncio.Event() for _ in range(WAITING + counted + SPARE)]
    needed = len(following)

    async def job(followed: asyncio.Event) -> None:
        arrived, document = await one.done(await one.submit(), following=followed)
        arrivals.append(arrived)
        checks.append(asyncio.create_task(_readable(one, document)))
        if len(arrivals) >= needed and not enough.done():
            enough.set_result(None)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None and not enough.done():
            enough.set_exception(fault)

    jobs = [asyncio.create_task(job(followed)) for followed in following]
    for task in jobs:
        task.add_done_callback(ended)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            for followed in following:
                await followed.wait()
            since, needed = loop.time(), len(arrivals) + counted + SETTLING
            await enough
    finally:
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await asyncio.gather(*checks)
    return sorted(arrivals), since


async def _readable(one: Client, job: dict[str, Any]) -> None:
    """The link gives the whole picture, now."""
    artifact = job["result"]["artifacts"][0]
    content = await one.fetch(artifact["url"])
    if len(content) < SMALLEST_BYTES or len(content) != artifact["bytes"]:
        raise RuntimeError(f"a link gave {len(content)} bytes")
    if hashlib.sha256(content).hexdigest() != artifact["sha256"]:
        raise RuntimeError("a link gave other bytes than were stored")
