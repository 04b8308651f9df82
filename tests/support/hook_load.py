"""Webhooks under load, on real processes: `python -m tests.support.hook_load --events 10000 [--scaled]`.

Twelve receivers of one account: half of them fail at random, one never answers, one is slow, four are healthy. In
between a process that delivers is killed. What each receiver took is held against the events of the jobs themselves:
every one there, verified by the standard library of receivers, with its number. Raises `AssertionError` if not; ends
with 1, too, if a healthy or flaky receiver waited a second or more for a first attempt, the time around the kill apart,
in which what the dead process held is taken over.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
from aiohttp import web
from standardwebhooks import Webhook
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, api, serve, simulator, worker
from tests.support.valkey import valkey

FLAKY, HEALTHY = 6, 4
BOTH: Final = ["job.running", "job.succeeded"]
SLOW_SECONDS: Final = 1.2
FAILS: Final = 0.4
"""Share of the requests to a flaky receiver that fail."""
AWAY_SECONDS: Final = 8.0
"""After a kill: what the dead process held is taken over within this time."""
MOST_SECONDS: Final = 1.0
"""By how much the dead and the slow one may delay the others."""
CALM: Final = "first delivery, healthy and flaky, s"
SPEED: Final = ("--seconds-per-step", "0.002", "--seconds-per-load", "0")
Told = tuple[str, str, int]
"""Job, type of the event, its number."""


@dataclass
class Receiver:
    kind: str
    events: list[str]
    url: str = ""
    secret: str = ""
    requests: int = 0
    taken: Counter[Told] = field(default_factory=Counter)
    delays: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By `webhook-id`: when it happened, and how long after that it came first."""
    ids: dict[Told, set[str]] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def handle(self, request: web.Request) -> web.Response:
        at = time.time()
        body = await request.read()
        self.requests += 1
        if self.kind == "dead":
            await asyncio.sleep(60)
        document = Webhook(self.secret).verify(body, dict(request.headers))
        happened = datetime.fromisoformat(document["timestamp"]).timestamp()
        self.delays.setdefault(request.headers["webhook-id"], (happened, at - happened))
        if self.kind == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if self.kind == "flaky" and self.chance.random() < FAILS:
            if self.chance.random() < 0.3 and request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        told = (document["data"]["job_id"], document["type"], document["data"]["seq"])
        self.taken[told] += 1
        self.ids.setdefault(told, set()).add(request.headers["webhook-id"])
        return web.Response(status=204)


@contextlib.asynccontextmanager
async def listening(receivers: list[Receiver]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for one in receivers:
            app = web.Application()
            app.router.add_post("/hooks", one.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
        yield


@dataclass
class Service:
    """`victim`: a process that delivers, to be killed; `again` lets another one go on, and gives the address then."""

    url: str
    victim: Process
    again: Callable[[], str]


@contextlib.contextmanager
def _alone(folder: Path, settings: dict[str, str]) -> Iterator[Service]:
    with contextlib.ExitStack() as stack:
        sims = [stack.enter_context(simulator(folder, *SPEED)) for _ in range(2)]
        urls = [sim.url for sim in sims]
        first = stack.enter_context(serve(folder, *urls, **settings))

        def again() -> str:
            return stack.enter_context(serve(folder, *urls, **settings)).url

        yield Service(first.url, first, again)


@contextlib.contextmanager
def _scaled(folder: Path, settings: dict[str, str]) -> Iterator[Service]:
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer()
        stack.callback(postgres.remove)
        postgres.start()
        postgres.execute("CREATE DATABASE comfy")
        redis = stack.enter_context(valkey())
        shared = {**settings, "DATABASE_URL": postgres.url("comfy"), "REDIS_URL": redis.url}
        door = stack.enter_context(api(folder, **shared))
        workers = []
        for _ in range(2):
            sim = stack.enter_context(simulator(folder, *SPEED))
            workers.append(stack.enter_context(worker(folder, "--comfyui-url", sim.url, **shared)))
        yield Service(door.url, workers[0], lambda: door.url)


async def run(events: int, *, scaled: bool = False, rate: float = 25.0) -> dict[str, Any]:
    """`rate`: jobs a second. Gives the figures."""
    receivers = [
        *(Receiver("flaky", BOTH, chance=random.Random(number)) for number in range(FLAKY)),
        *(Receiver("healthy", BOTH) for _ in range(HEALTHY)),
        Receiver("dead", BOTH),
        Receiver("slow", ["job.succeeded"]),
    ]
    each_job = sum(len(one.events) for one in receivers)
    jobs = -(-events // each_job)
    settings = {
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WEBHOOK_RETRY_DELAY": "0.05",
        "SECRET_KEY": "of-the-load-of-hooks-alone-0f2c9d7b51e8a463",
        "NO_PROXY": "127.0.0.1",
        "LOG_LEVEL": "WARNING",
    }
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        made = (_scaled if scaled else _alone)(Path(name), settings)
        service = await asyncio.to_thread(stack.enter_context, made)
        async with listening(receivers), httpx2.AsyncClient(base_url=service.url, timeout=60) as http:
            return await _story(service, http, receivers, jobs, rate)


async def _story(
    service: Service, http: httpx2.AsyncClient, receivers: list[Receiver], jobs: int, rate: float
) -> dict[str, Any]:
    await _until(http, "/health", lambda found: found["comfyui_status"] == "connected")
    for one in receivers:
        answer = await http.post("/api/v1/webhooks", json={"url": one.url, "events": one.events})
        one.secret = answer.json()["secret"]
    lateness: list[float] = []
    watch = asyncio.create_task(_watch(lateness))
    begun = time.time()
    ids = [await _submit(http, begun + number / rate) for number in range(jobs // 2)]
    killed = time.time()
    await asyncio.to_thread(service.victim.kill)
    http.base_url = httpx2.URL(await asyncio.to_thread(service.again))
    back = time.time()
    ids += [await _submit(http, back + number / rate) for number in range(jobs - len(ids))]
    truth = {one for job_id in ids for one in await _events(http, job_id)}
    submitted_and_done = time.time() - begun
    live = [one for one in receivers if one.kind != "dead"]
    wanted = {id(one): {told for told in truth if told[1] in one.events} for one in live}
    async with asyncio.timeout(900):
        while any(not wanted[id(one)] <= one.taken.keys() for one in live):  # noqa: ASYNC110 - the receivers say nothing
            await asyncio.sleep(0.1)
    took = time.time() - begun
    watch.cancel()
    for one in live:
        assert one.taken.keys() == wanted[id(one)], "something was told that never happened"
        assert all(len(found) == 1 for found in one.ids.values()), "an event came under two ids"
    waiting = (await http.get("/api/v1/webhooks/deliveries", params={"status": "waiting"})).json()
    dead = next(one for one in receivers if one.kind == "dead")
    assert len({line["webhook_id"] for line in waiting["deliveries"]}) == 1, "only the dead one's wait"
    return _figures(receivers, truth, dead, lateness, killed, back, submitted_and_done, took)


def _figures(
    receivers: list[Receiver],
    truth: set[Told],
    dead: Receiver,
    lateness: list[float],
    killed: float,
    back: float,
    done: float,
    took: float,
) -> dict[str, Any]:
    healthy = [
        delay for one in receivers if one.kind in ("healthy", "flaky") for delay in one.delays.values()
    ]
    shadow = (killed - 1.0, back + AWAY_SECONDS)
    calm = sorted(delay for at, delay in healthy if not shadow[0] <= at <= shadow[1])
    around = sorted(delay for at, delay in healthy if shadow[0] <= at <= shadow[1])
    return {
        "events of jobs": len(truth),
        "deliveries": sum(len([t for t in truth if t[1] in one.events]) for one in receivers),
        "delivered": sum(len(one.taken) for one in receivers),
        "taken twice": sum(sum(one.taken.values()) - len(one.taken) for one in receivers),
        "requests": sum(one.requests for one in receivers),
        "requests to the dead one": dead.requests,
        "seconds until all jobs were done": round(done, 1),
        "seconds until all was delivered": round(took, 1),
        CALM: _spread(calm),
        "the same around the kill, s": _spread(around),
        "lateness of this loop, s": _spread(sorted(lateness)),
        "load of the machine": round(os.getloadavg()[0], 1),
    }


def _spread(found: list[float]) -> dict[str, float]:
    if not found:
        return {}
    return {
        "n": len(found),
        "p50": round(found[len(found) // 2], 3),
        "p99": round(found[min(len(found) * 99 // 100, len(found) - 1)], 3),
        "max": round(found[-1], 3),
    }


async def _submit(http: httpx2.AsyncClient, at: float) -> str:
    await asyncio.sleep(max(at - time.time(), 0.0))
    body = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 1}
    answer = await http.post("/api/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def _events(http: httpx2.AsyncClient, job_id: str) -> set[Told]:
    """As the job's own stream of events tells them, at its end."""
    found = set()
    async with http.stream(
        "GET", f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "0"}
    ) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            event = json.loads(line.removeprefix("data:"))
            if event["type"] == "running":
                found.add((job_id, "job.running", event["seq"]))
            elif event["type"] == "done":
                found.add((job_id, f"job.{event['status']}", event["seq"]))
    assert len(found) >= 2, found
    return found


async def _until(http: httpx2.AsyncClient, path: str, condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition((await http.get(path)).json()):  # noqa: ASYNC110 - another process knows
            await asyncio.sleep(0.05)


async def _watch(lateness: list[float]) -> None:
    """How late this loop's own timers are: what the machine, and not the service, adds to a delay."""
    while True:
        due = time.monotonic() + 0.05
        await asyncio.sleep(0.05)
        lateness.append(max(time.monotonic() - due, 0.0))


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--events", type=int, default=10_000)
    reader.add_argument("--rate", type=float, default=25.0)
    reader.add_argument("--scaled", action="store_true")
    given = reader.parse_args()
    figures = asyncio.run(run(given.events, scaled=given.scaled, rate=given.rate))
    for name, value in figures.items():
        print(f"{name}: {value}")  # noqa: T201
    if figures[CALM]["max"] >= MOST_SECONDS:
        print(f"MISSED: a first attempt was made {figures[CALM]['max']} s after its event")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
