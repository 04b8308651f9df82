"""Busy: how well a backend is kept at work with 1 000 jobs waiting, against a bare client that fills its queue."""

import asyncio
from typing import Final

from benchmarks import client, record
from benchmarks.bare import protocol
from benchmarks.harness import Check, Options, in_turns, median, say
from benchmarks.servers import service, simulator

WAITING: Final = 1000
SETTLING: Final = 10
"""Prompts of a round that run before those that count."""
PROMPT_SECONDS: Final = 0.05
ROUND_SECONDS: Final = 0.056
"""What a prompt takes with the server's own pause after it."""


async def run(options: Options) -> list[Check]:
    rounds, counted = options.choose(3, 1), options.choose(160, 100)
    per_job: list[float] = []
    folder = options.folder / "busy"
    async with (
        simulator(folder / "bare", seconds_per_prompt=PROMPT_SECONDS) as bare_backend,
        simulator(folder / "backend", seconds_per_prompt=PROMPT_SECONDS) as backend,
    ):

        async def bare(number: int) -> float:
            before = await record.read(bare_backend)
            async with protocol.connected(bare_backend.url) as one:
                await one.keep_filled(counted + SETTLING)
            ratio = record.busy_ratio((await record.read(bare_backend)).since(before)[SETTLING:])
            say(f"busy: round {number + 1}, bare protocol {ratio:.4f}")
            return ratio

        async def served(number: int) -> float:
            async with (
                service(folder / f"service-{number}", backend.url) as server,
                client.connected(server.url) as one,
            ):
                await one.submit_many(WAITING + counted + 2 * SETTLING)
                await asyncio.sleep(SETTLING * ROUND_SECONDS)
                before = await record.read(backend)
                await asyncio.sleep(counted * ROUND_SECONDS)
                after = await record.read(backend)
            executions = after.since(before)
            per_job.append((after.requests - before.requests) / len(executions))
            ratio = record.busy_ratio(executions)
            say(f"busy: round {number + 1}, service {ratio:.4f} over {len(executions)} prompts")
            return ratio

        bare_ratios, ratios = await in_turns(rounds, bare, served)
        most = (await record.read(backend)).most_prompts
    return [
        Check(
            "busy ratio over the bare protocol's",
            median([ours / theirs for ours, theirs in zip(ratios, bare_ratios, strict=True)]),
            0.99,
            f"service {median(ratios):.4f}, bare {median(bare_ratios):.4f}",
            at_least=True,
        ),
        Check("prompts on the backend at once", most, 2, "the most of all rounds", unit="prompts"),
        Check(
            "HTTP requests to the backend a job", median(per_job), 3, "all requests counted", unit="requests"
        ),
    ]
