"""End to link on many machines: the same over PostgreSQL, Valkey and S3, API and worker in processes of their own,
against a bare `/view` and one put into the same store.
"""

import obstore

from benchmarks import client, record
from benchmarks.bare import protocol
from benchmarks.end_to_link import PROMPT_SECONDS, SETTLING, arrivals_of, compared
from benchmarks.harness import Check, Options, in_turns, median, ms, percentile, say
from benchmarks.servers import api, inventory_known, simulator, worker
from benchmarks.stores import postgres, s3, store_of, valkey


async def run(options: Options) -> list[Check]:
    rounds, counted = options.choose(5, 2), options.choose(100, 60)
    folder = options.folder / "link_scaled"
    async with (
        simulator(folder / "bare", seconds_per_prompt=PROMPT_SECONDS) as bare_backend,
        simulator(folder / "backend", seconds_per_prompt=PROMPT_SECONDS) as backend,
        postgres() as database,
        valkey(folder / "valkey") as redis,
        s3(folder / "s3") as store,
    ):
        bucket = store_of(store)

        async def put(name: str, content: bytes) -> object:
            return await obstore.put_async(bucket, f"bare/{name}.png", content)

        async def bare(number: int) -> list[float]:
            async with protocol.connected(bare_backend.url) as one:
                await one.keep_filled(counted + SETTLING, store=put)
            views = one.views[SETTLING:]
            say(f"link_scaled: round {number + 1}, bare /view and put p50 {ms(median(views))}")
            return views

        async def served(number: int) -> list[float]:
            place = folder / f"service-{number}"
            settings = {
                "DATABASE_URL": await database.database(f"round{number}"),
                "REDIS_URL": redis,
                **store,
            }
            before = await record.read(backend)
            async with (
                worker(place, [backend.url], **settings),
                api(place, **settings) as server,
                client.connected(server.url) as one,
            ):
                await inventory_known(server)
                arrivals, since = await arrivals_of(one, counted)
            ends = [execution.ended for execution in (await record.read(backend)).since(before)]
            taken = [arrived - ended for arrived, ended in zip(arrivals, ends, strict=False) if ended > since]
            say(
                f"link_scaled: round {number + 1}, service p50 {ms(median(taken))}, p99 {ms(percentile(taken, 99))}"
            )
            return taken[:counted]

        views, taken = await in_turns(rounds, bare, served)
    return compared(views, taken, "a bare /view's and put's")
