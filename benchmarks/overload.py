"""Overload: twice what the backends can do, and the limit on waiting jobs reached: how soon callers are refused and
accepted, against accepted ones without load.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from benchmarks import client
from benchmarks.client import Client
from benchmarks.fleet import backends
from benchmarks.harness import Check, Options, median, ms, percentile, say
from benchmarks.servers import api, inventory_known, worker
from benchmarks.stores import postgres, valkey

BACKENDS: Final = 4
JOB_SECONDS: Final = 0.2
CAPACITY: Final = BACKENDS / JOB_SECONDS
WAITING: Final = 100
ACCEPTED, REFUSED = 202, 429
FILLING_SECONDS: Final = 60.0
Answered = list[tuple[int, float]]
"""Status and seconds of each."""


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(4, 2), options.choose(12, 8)
    folder = options.folder / "overload"
    calm: list[Answered] = []
    pressed: list[Answered] = []
    async with (
        postgres() as database,
        valkey(folder / "valkey") as redis,
        backends(folder / "backends", BACKENDS, seconds_per_prompt=JOB_SECONDS) as servers,
    ):
        settings = {"REDIS_URL": redis, "QUEUE_LIMIT": str(WAITING)}
        for number in range(rounds):
            place, url = folder / f"round-{number}", await database.database(f"round{number}")
            async with (
                worker(place, [one.url for one in servers], DATABASE_URL=url, **settings),
                api(place, DATABASE_URL=url, **settings) as server,
                client.connected(server.url) as one,
            ):
                await inventory_known(server)
                await _offer(one, CAPACITY / 4, 2)
                calm.append(await _offer(one, CAPACITY / 4, 2 * seconds))
                await _fill(one)
                pressed.append(await _offer(one, 2 * CAPACITY, seconds))
            found = Counter(status for status, _ in pressed[-1])
            say(
                f"overload: round {number + 1}, of {found.total()} {found[ACCEPTED]} accepted, p99 "
                f"{ms(_late(pressed[-1], ACCEPTED))}, {found[REFUSED]} refused, p99 {ms(_late(pressed[-1], REFUSED))}; "
                f"accepted without load p99 {ms(_late(calm[-1], ACCEPTED))}"
            )
    refused, accepted = (median([_late(one, status) for one in pressed]) for status in (REFUSED, ACCEPTED))
    unloaded = median([_late(one, ACCEPTED) for one in calm])
    return [
        Check(
            "refusals' p99 over that of accepted ones",
            refused / accepted,
            1,
            f"{ms(refused)} to {ms(accepted)}",
        ),
        Check(
            "accepted ones' p99 over that without load",
            accepted / unloaded,
            2,
            f"{ms(accepted)} to {ms(unloaded)}",
        ),
    ]


async def _fill(one: Client) -> None:
    """Until one is refused."""
    async with asyncio.timeout(FILLING_SECONDS):
        while REFUSED not in {
            status for status, _ in await asyncio.gather(*(_submit(one) for _ in range(16)))
        }:
            pass


async def _offer(one: Client, rate: float, seconds: float) -> Answered:
    """At an even pace, whatever the answers are."""
    began, sent = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        sent.append(asyncio.create_task(_submit(one)))
    answered = list(await asyncio.gather(*sent))
    if unknown := {status for status, _ in answered} - {ACCEPTED, REFUSED}:
        raise RuntimeError(f"answers other than {ACCEPTED} and {REFUSED}: {unknown}")
    return answered


async def _submit(one: Client) -> tuple[int, float]:
    began = time.perf_counter()
    async with one.http.post("/api/v1/jobs", json=client.request()) as answer:
        await answer.read()
        return answer.status, time.perf_counter() - began


def _late(answered: Sequence[tuple[int, float]], wanted: int) -> float:
    return percentile([seconds for status, seconds in answered if status == wanted], 99)
