"""Authentication: what it adds to a submission, in CPU and in calls of Redis; what a burst of logins does to others.

Both sides are `comfy-api api` over PostgreSQL and Valkey; one knows its callers by their keys, and holds all limits of
their tier against them.
"""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import redis.asyncio

from benchmarks import backlog
from benchmarks.harness import Check, Options, in_turns, median, ms, percentile, say
from benchmarks.servers import Server, api
from benchmarks.stores import postgres, valkey
from benchmarks.submissions import AS_BARE, CONNECTIONS, WARM_UP, accepted, known_inventory, sending
from comfy_api_service.db import accounts, api_keys
from comfy_api_service.db.base import Tx
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope, digest, make_api_key
from comfy_api_service.domain.ids import new_account_id
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.tiers import TIERS
from comfy_api_service.domain.users import User

MUCH: Final = dict.fromkeys(("images_per_day", "waiting", "submissions_per_minute"), 10**8)
"""Limits that are asked about, and never reached."""
LOGINS: Final = 50
PAUSE_SECONDS: Final = 0.01
"""Between two requests of those who only read."""


async def run(options: Options) -> list[Check]:
    rounds, seconds = options.choose(5, 2), options.choose(4, 2)
    folder = options.folder / "authentication"
    prefixes = itertools.count()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        address = await stack.enter_async_context(valkey(folder / "valkey"))
        url = await database.database("authentication")
        await known_inventory(url)
        key = await _caller(url)
        shared = {"DATABASE_URL": url, "REDIS_URL": address, **AS_BARE}
        plain = await stack.enter_async_context(api(folder / "plain", **shared))
        burst = await stack.enter_async_context(
            api(folder / "logins", AUTH_ENABLED="true", RATE_LIMIT_ENABLED="false", **shared)
        )
        asking = await stack.enter_async_context(api(folder / "asking", AUTH_ENABLED="true", **shared))
        sender = await stack.enter_async_context(sending(options, "authentication"))
        store = redis.asyncio.Redis.from_url(address)
        stack.push_async_callback(store.aclose)

        async def side(name: str, number: int, server: Server, **given: Any) -> tuple[float, float]:
            own, calls = server.cpu_seconds(), await _scripts(store)
            sent = await sender.ask(
                "send", ports=[server.port], prefix=f"a{next(prefixes)}", connections=CONNECTIONS, **given
            )
            count = accepted(sent)
            found = (server.cpu_seconds() - own) / count, (await _scripts(store) - calls) / count
            say(
                f"authentication: round {number + 1}, {name} {ms(found[0])} of CPU a submission, {found[1]:.2f} scripts"
            )
            return found

        for server, more in ((plain, {}), (asking, {"key": key})):
            await side("warm", 0, server, count=WARM_UP, **more)
        without, with_it = await in_turns(
            rounds,
            lambda number: side("without", number, plain, seconds=seconds),
            lambda number: side("with", number, asking, seconds=seconds, key=key),
        )
        without_logins, with_logins = await in_turns(
            rounds,
            lambda number: _reading(burst, key, number, logins=0),
            lambda number: _reading(burst, key, number, logins=LOGINS),
        )
    return [
        Check(
            "CPU of a submission with authentication, over without",
            median([one[0] / other[0] for one, other in zip(with_it, without, strict=True)]),
            1.15,
            f"{ms(median([one[0] for one in with_it]))} to {ms(median([one[0] for one in without]))}",
        ),
        Check(
            "calls of Redis that it adds to a submission",
            max(one[1] for one in with_it),
            1,
            "one script takes the tokens of all buckets",
            unit="calls",
        ),
        Check(
            f"others' p99 during {LOGINS} logins at once, over without",
            median(with_logins) / median(without_logins),
            3,
            f"{ms(median(with_logins))} to {ms(median(without_logins))}",
        ),
    ]


async def _caller(url: str) -> str:
    """An account with limits, and the text of its key."""
    made = make_api_key()
    user = User(
        new_account_id(),
        "bench",
        "bench@example.com",
        "bench",
        "free",
        Role.USER,
        time.time(),
        overrides=MUCH,
    )

    async def write(tx: Tx) -> None:
        await accounts.create(tx, user, user.account(TIERS).limits, None)
        scopes = frozenset((Scope.READ, Scope.WRITE))
        await api_keys.insert(
            tx, Key(made.public_id, user.id, "bench", scopes, time.time()), digest(made.text)
        )

    db = await PostgresDatabase.open(url, application="benchmark", connections=2)
    try:
        await backlog.add_accounts(db, {"acc_local": 1.0})
        await db.write(write)
    finally:
        await db.close()
    return made.text


async def _scripts(store: "redis.asyncio.Redis") -> int:
    """How often scripts were called."""
    told = await store.info("commandstats")
    return sum(int(told.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


async def _reading(server: Server, key: str, number: int, *, logins: int) -> float:
    """p99 of a request that reads, one after the other, for as long as so many logins take, or two seconds."""
    took: list[float] = []
    async with aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def login(one: int) -> None:
            body = {"username": f"nobody{number}-{one}", "password": "not the password"}
            async with http.post("/api/v1/auth/login", json=body) as answer:
                if answer.status != 401:
                    raise RuntimeError(f"a login was answered {answer.status}")

        burst = (
            asyncio.gather(*map(login, range(logins)))
            if logins
            else asyncio.ensure_future(asyncio.sleep(2.0))
        )
        while not burst.done():
            began = time.perf_counter()
            async with http.get("/api/v1/jobs", params={"limit": 1}, headers={"X-API-Key": key}) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"a request was answered {answer.status}")
            took.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_SECONDS)
        await burst
    found = percentile(took, 99)
    say(f"authentication: round {number + 1}, {logins} logins, p99 of {len(took)} others {ms(found)}")
    return found
