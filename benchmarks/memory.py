"""Memory: how much the process grows from no job to 100 000 that wait."""

from typing import Final

from benchmarks.harness import MEGABYTE, Check, Options, say
from benchmarks.submissions import CONNECTIONS, accepted, sending, without_backend

BOUND_MEGABYTES: Final = 20


async def run(options: Options) -> list[Check]:
    jobs, steps = options.choose(100_000, 10_000), 5
    seen = []
    async with without_backend(options, "memory") as server, sending(options, "memory") as sender:
        first = server.memory()
        say(f"memory: no job, {first / MEGABYTE:.1f} MB")
        for step in range(steps):
            sent = await sender.ask(
                "send", ports=[server.port], prefix=f"s{step}", connections=CONNECTIONS, count=jobs // steps
            )
            accepted(sent)
            seen.append(server.memory())
            say(f"memory: {(step + 1) * jobs // steps} jobs wait, {seen[-1] / MEGABYTE:.1f} MB")
    return [
        Check(
            f"growth from 0 to {jobs:,} waiting jobs".replace(",", " "),
            (seen[-1] - first) / MEGABYTE,
            BOUND_MEGABYTES,
            f"from {first / MEGABYTE:.1f} to {seen[-1] / MEGABYTE:.1f} MB",
            unit="MB",
        )
    ]
