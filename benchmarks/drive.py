"""Drive: one `comfy-api worker` for eight backends at 400 ms a job, over PostgreSQL and Valkey, results on disk.

The busy ratio is that of the backends with jobs waiting all the time; CPU is that of the worker's process, over the
jobs that ended meanwhile.
"""

import asyncio
from typing import Final

from benchmarks import backlog, record
from benchmarks.backlog import new_job
from benchmarks.fleet import backends
from benchmarks.harness import Check, Options, median, ms, say
from benchmarks.servers import worker
from benchmarks.stores import postgres, valkey
from comfy_api_service.db.postgres import PostgresDatabase

BACKENDS: Final = 8
JOB_SECONDS: Final = 0.4
SETTLING_SECONDS: Final = 3.0


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(5, 2), options.choose(12, 8)
    folder = options.folder / "drive"
    ratios, costs = [], []
    async with (
        postgres() as database,
        valkey(folder / "valkey") as redis,
        backends(folder / "backends", BACKENDS, seconds_per_prompt=JOB_SECONDS) as servers,
    ):
        url = await database.database("drive")
        db = await PostgresDatabase.open(url, application="benchmark", connections=2)
        try:
            waiting = int(BACKENDS * (rounds * seconds + 4 * SETTLING_SECONDS) / JOB_SECONDS)
            await backlog.add_accounts(db, {"acc_local": 1.0})
            await backlog.copy(db, [new_job(cost=JOB_SECONDS)], waiting)
        finally:
            await db.close()
        async with worker(folder, [one.url for one in servers], DATABASE_URL=url, REDIS_URL=redis) as driving:
            await asyncio.sleep(SETTLING_SECONDS)
            for number in range(rounds):
                before, cpu = [await record.read(one) for one in servers], driving.cpu_seconds()
                await asyncio.sleep(seconds)
                used = driving.cpu_seconds() - cpu
                done = [
                    (await record.read(one)).since(then) for one, then in zip(servers, before, strict=True)
                ]
                ratios.append(sum(record.busy_ratio(each) for each in done) / BACKENDS)
                costs.append(used / sum(len(each) for each in done))
                say(
                    f"drive: round {number + 1}, {sum(len(each) for each in done)} jobs, busy {ratios[-1]:.4f}, "
                    f"CPU of the worker a job {ms(costs[-1])}"
                )
    return [
        Check(
            f"busy ratio of {BACKENDS} backends with one worker",
            median(ratios),
            0.95,
            f"jobs of {ms(JOB_SECONDS)}",
            unit="of the time",
            at_least=True,
        ),
        Check("CPU of that worker a job", median(costs) * 1000, 10, "500 kB PNG", unit="ms"),
    ]
