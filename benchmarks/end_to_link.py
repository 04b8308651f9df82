"""End to link: from the end of a prompt to `done` with a readable link at a client, against a bare `/view`."""

import asyncio
from typing import Any, Final

from benchmarks import client, record
from benchmarks.bare import protocol
from benchmarks.client import Client
from benchmarks.harness import Check, Options, in_turns, median, ms, percentile, say
from benchmarks.png import noise
from benchmarks.servers import service, simulator

WAITING: Final = 200
SETTLING: Final = 5
PROMPT_SECONDS: Final = 0.05
SMALLEST_BYTES: Final = 490_000
PICTURE_BYTES: Final = len(noise())


async def run(options: Options) -> list[Check]:
    rounds, counted = options.choose(5, 2), options.choose(100, 80)
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
                arrivals = await _follow(one, counted + SETTLING)
                after = await record.read(backend)
            ends = [execution.ended for execution in after.since(before)]
            taken = _between(ends, arrivals)[SETTLING:]
            say(f"end_to_link: round {number + 1}, service p50 {ms(median(taken))}, p99 {ms(percentile(taken, 99))}")
            return taken

        views, taken = await in_turns(rounds, bare, served)
    bases = [percentile(one, 50) for one in views]
    middles = [percentile(one, 50) for one in taken]
    lates = [percentile(one, 99) for one in taken]
    return [
        Check(
            "end of the prompt to the link, p50 over a bare /view",
            median([ours / base for ours, base in zip(middles, bases, strict=True)]),
            3.0,
            f"service {ms(median(middles))}, bare {ms(median(bases))}",
        ),
        Check(
            "end of the prompt to the link, p99 over its p50",
            median([ours / base for ours, base in zip(lates, bases, strict=True)]),
            6.0,
            f"service {ms(median(lates))}",
        ),
    ]


async def _follow(one: Client, count: int) -> list[float]:
    """When each of the first `count` jobs was done, in monotonic seconds, by moment; others wait all the time."""
    arrivals: list[float] = []
    enough = asyncio.Event()
    checks: list[asyncio.Task[None]] = []

    async def job() -> None:
        arrived, document = await one.done(await one.submit())
        arrivals.append(arrived)
        checks.append(asyncio.create_task(_readable(one, document)))
        if len(arrivals) >= count:
            enough.set()

    jobs = [asyncio.create_task(job()) for _ in range(WAITING + count)]
    try:
        await asyncio.wait([asyncio.create_task(enough.wait()), *jobs], return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await asyncio.gather(*checks)
    return sorted(arrivals)
