"""Submit to start: from sending a request to the start of its prompt on an idle backend, against a bare POST."""

import asyncio
import time
from typing import Final

from benchmarks import client, record
from benchmarks.bare import protocol
from benchmarks.harness import Check, Options, in_turns, median, ms, say
from benchmarks.servers import service, simulator

PROMPT_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 0.05
"""Between the end of a prompt and the next request: what either side does after an end is over by then. The
start alone is measured, and a backend that is idle, not one that still cleans up.
"""
SETTLING: Final = 3


async def run(options: Options) -> list[Check]:
    rounds, counted = options.choose(6, 3), options.choose(50, 30)
    folder = options.folder / "submit_to_start"
    async with (
        simulator(folder / "bare", seconds_per_prompt=PROMPT_SECONDS) as bare_backend,
        simulator(folder / "backend", seconds_per_prompt=PROMPT_SECONDS) as backend,
        service(folder / "service", backend.url) as server,
        protocol.connected(bare_backend.url) as bare_client,
        client.connected(server.url) as one,
        one.following_all() as finished,
    ):

        async def bare(number: int) -> float:
            before = await record.read(bare_backend)
            sent = []
            for _ in range(counted + SETTLING):
                sent.append((await bare_client.post())[1])
                await bare_client.ended()
                await asyncio.sleep(IDLE_SECONDS)
            starts = [execution.started for execution in (await record.read(bare_backend)).since(before)]
            return _middle("bare", number, starts, sent)

        async def served(number: int) -> float:
            before = await record.read(backend)
            sent = []
            for _ in range(counted + SETTLING):
                sent.append(time.monotonic())
                await finished(await one.submit())
                await asyncio.sleep(IDLE_SECONDS)
            starts = [execution.started for execution in (await record.read(backend)).since(before)]
            return _middle("service", number, starts, sent)

        bares, ours = await in_turns(rounds, bare, served)
    return [
        Check(
            "submit to start, p50 over the bare protocol's",
            median([mine / theirs for mine, theirs in zip(ours, bares, strict=True)]),
            3.0,
            f"service {ms(median(ours))}, bare {ms(median(bares))}",
        )
    ]


def _middle(side: str, number: int, starts: list[float], sent: list[float]) -> float:
    taken = [start - at for start, at in zip(starts, sent, strict=True)][SETTLING:]
    say(f"submit_to_start: round {number + 1}, {side} p50 {ms(median(taken))}")
    return median(taken)
