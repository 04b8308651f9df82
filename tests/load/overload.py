"""Overload: many times what the backends can do. Everybody is answered: accepted, or refused with when to come again;
nothing that was accepted is lost; memory stays; and when it is over, the service is soon as before.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import psutil
from tests.chaos import scaled
from tests.chaos.backend import PROMPT_SECONDS
from tests.chaos.matrix import SINGLE, Column, Row, Senseless, Stack
from tests.chaos.scene import LIMIT, SHORT
from tests.soak.stage import Stage
from tests.support.checker import faults
from tests.support.checker import opened as sqlite

MEGABYTE: Final = 1_000_000.0
NOISY: Final = 4
"""Accounts that press; one more calls now and then, as it did before."""
QUEUE_SECONDS: Final = 5.0
"""What may wait, in seconds of all backends' work."""
AT_ONCE: Final = 500
"""Requests under way; who comes beyond waits at the caller's."""
CALM_SECONDS: Final = 10.0
NORMAL_WITHIN: Final = 10.0
"""Seconds after the end within which the service is as before."""
IN_A_ROW: Final = 3
"""Calls as before that show it."""
GROWTH_MEGABYTES: Final = 30.0
"""What a process may hold more under the load than before it; and it is to stay at that: see `STAYS_MEGABYTES`."""
STAYS_MEGABYTES: Final = 8.0
"""What it may grow from the second fifth of the load to the last."""
AS_BEFORE: Final = 2.0
"""A call is as before that takes at most so many times the slowest one without load, or less than the floor."""
SUBMIT_FLOOR: Final = 0.1
START_FLOOR: Final = 2 * float(PROMPT_SECONDS)
"""Seconds; a job waits for the prompt that runs, and for the one behind it."""


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float = 120.0
    factor: float = 10.0
    one_machine: bool = False
    backends: int = 4
    calm_seconds: float = CALM_SECONDS

    @property
    def stack(self) -> Stack:
        return SINGLE if self.one_machine else scaled.STACK

    @property
    def capacity(self) -> float:
        """Jobs a second that the backends can do."""
        return self.backends / float(PROMPT_SECONDS)


@dataclass(frozen=True, slots=True)
class Call:
    """A submission of the quiet account that was accepted and began."""

    submit: float
    start: float
    """Seconds until the answer, and from then until the job ran."""


@dataclass(slots=True)
class Seen:
    """What callers saw."""

    answers: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    took: dict[int, list[float]] = field(default_factory=dict)
    """By status, seconds until the answer."""
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Of each process of the service, seconds and megabytes."""
    calm: list[Call] = field(default_factory=list)
    normal_after: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    plan: Plan
    seen: Seen
    offered: float
    """Submissions a second that were really sent."""
    growth: dict[str, tuple[float, float, float]]
    """By process: megabytes before, growth to the most, growth from the second fifth to the last."""
    found: list[str]


class Pressed(Stage):
    """A stage whose queue is bounded."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        row = Row("overload", 0, dict.fromkeys(Column, Senseless("It is no row.")), plan.stack)
        super().__init__(folder, row, SHORT, 1, random.Random(1))
        self.backends_started = plan.backends
        self._most = str(int(QUEUE_SECONDS * plan.capacity))

    def environment(self, name: str) -> dict[str, str]:
        return {**super().environment(name), "QUEUE_LIMIT": self._most}


def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Outcome:
    """Raises AssertionError if the service does not start."""
    with opened(plan, folder) as scene:
        return press(plan, scene, tell)


@contextmanager
def opened(plan: Plan, folder: Path) -> Iterator[Pressed]:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scene = Pressed(folder, plan)
        scene.open(stack)
        scene.admit(["enterprise"] * (NOISY + 1))
        yield scene


def press(plan: Plan, scene: Pressed, tell: Callable[[str], None]) -> Outcome:
    """Ends the service, and judges."""
    seen = Seen()
    sent, took = asyncio.run(_story(plan, scene, seen, tell))
    if not scene.until(lambda: scene.open_jobs() == 0, pause=0.1):
        tell("jobs are still open")
    for process in scene.processes():
        process.popen.send_signal(signal.SIGTERM)
    codes = [process.popen.wait(LIMIT) for process in scene.processes()]
    found = [
        f"{fault.kind}: {fault.text}" for fault in faults(scene.data, seen.accepted, artifacts=scene.results)
    ]
    found += [f"the service ended with {codes}"] * any(codes)
    growth = {name: _growth(memory) for name, memory in seen.memory.items()}
    return Outcome(plan, seen, sent / took, growth, [*found, *_failed(scene, seen), *_judged(seen, growth)])


def _failed(scene: Pressed, seen: Seen) -> list[str]:
    """Nothing broke: each accepted job succeeds."""
    with closing(sqlite(scene.data)) as db:
        ended = dict(db.execute("SELECT id, state FROM jobs").fetchall())
    return [
        f"{job_id} was accepted and is {ended.get(job_id)}"
        for job_id in seen.accepted
        if ended.get(job_id) != "succeeded"
    ]


async def _story(plan: Plan, scene: Pressed, seen: Seen, tell: Callable[[str], None]) -> tuple[int, float]:
    """How many submissions were sent under load, in how many seconds."""
    urls = [scene.process(name).url for name in scene.doors]
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as http:
        callers = [Caller(http, urls, key, seen) for key in scene.keys]
        quiet, noisy = callers[0], callers[1:]
        await _until_served(quiet)
        watching = asyncio.create_task(_watch(scene, seen))
        tell(
            f"calm: {plan.calm_seconds:g} s at a quarter of what {plan.backends} backends can do "
            f"({plan.capacity:g} jobs a second)"
        )
        seen.memory.clear()
        end = time.monotonic() + plan.calm_seconds
        while time.monotonic() < end:
            began = time.monotonic()
            seen.calm.append(await quiet.call())
            await asyncio.sleep(max(0.0, began + 4 / plan.capacity - time.monotonic()))
        tell(f"load: {plan.seconds:g} s at {plan.factor:g} times that")
        seen.memory = {name: [(0.0, memory[-1][1])] for name, memory in seen.memory.items()}
        seen.answers.clear()
        seen.took.clear()
        began = time.monotonic()
        sent = await _press(noisy, plan)
        took = time.monotonic() - began
        watching.cancel()
        tell(f"after: {sum(seen.answers.values())} answers; until calls are as before")
        seen.normal_after = await _until_normal(quiet, seen.calm)
    return sent, took


class Caller:
    """One account's."""

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str], key: str, seen: Seen) -> None:
        self._http = http
        self._urls = urls
        self._headers = {"X-API-Key": key}
        self._seen = seen
        self._rng = random.Random(key)

    async def submit(self) -> str | None:
        """The id, if it was accepted; every answer is held to what was promised."""
        body = {"prompt": "a lighthouse", "steps": 4, "width": 64, "height": 64,
                "seed": self._rng.getrandbits(48)}  # fmt: skip
        url, began = self._rng.choice(self._urls), time.monotonic()
        try:
            async with self._http.post(f"{url}/api/v1/jobs", json=body, headers=self._headers) as answer:
                told: Any = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._seen.wrong[f"no answer: {type(error).__name__}"] += 1
            return None
        status, seen = answer.status, self._seen
        seen.took.setdefault(status, []).append(time.monotonic() - began)
        if status == 202:
            seen.answers["202"] += 1
            seen.accepted.append(told["job_id"])
            return str(told["job_id"])
        code = told.get("error", {}).get("code", "no name")
        seen.answers[f"{status} {code}"] += 1
        if status not in {429, 503}:
            seen.wrong[f"{status} {code}"] += 1
        elif not answer.headers.get("Retry-After", "").isdigit():
            seen.wrong[f"{status} {code} without Retry-After"] += 1
        return None

    async def call(self) -> Call:
        """Submit until it is accepted, and follow the job until it runs."""
        began = time.monotonic()
        while (job_id := await self.submit()) is None:  # noqa: ASYNC110 - the service is asked
            await asyncio.sleep(0.1)
        submitted = time.monotonic()
        url = f"{self._urls[0]}/api/v1/jobs/{job_id}"
        while True:
            async with self._http.get(url, headers=self._headers) as answer:
                job: Any = await answer.json()
            if job.get("started_at"):
                waited = datetime.fromisoformat(job["started_at"]) - datetime.fromisoformat(job["queued_at"])
                return Call(submitted - began, waited.total_seconds())
            await asyncio.sleep(0.02)


async def _until_served(quiet: Caller) -> None:
    async with asyncio.timeout(LIMIT):
        for _ in range(2):
            await quiet.call()


async def _press(noisy: Sequence[Caller], plan: Plan) -> int:
    """At an even pace, whatever the answers are; nobody waits as long as he is told to."""
    began, sent, running = time.monotonic(), 0, set[asyncio.Task[Any]]()
    room = asyncio.Semaphore(AT_ONCE)
    while (now := time.monotonic() - began) < plan.seconds:
        while sent < plan.factor * plan.capacity * now:
            await room.acquire()
            task = asyncio.create_task(noisy[sent % len(noisy)].submit())
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: room.release())
            sent += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*running)
    return sent


async def _watch(scene: Pressed, seen: Seen) -> None:
    processes = {name: psutil.Process(scene.process(name).popen.pid) for name in scene.names()}
    began = time.monotonic()
    while True:
        for name, process in processes.items():
            held = process.memory_info().rss / MEGABYTE
            seen.memory.setdefault(name, []).append((time.monotonic() - began, held))
        await asyncio.sleep(0.25)


async def _until_normal(quiet: Caller, calm: Sequence[Call]) -> float | None:
    """Seconds from now to the first of some calls in a row that are as before; None if it takes too long."""
    submit = max(SUBMIT_FLOOR, AS_BEFORE * max(one.submit for one in calm))
    start = max(START_FLOOR, AS_BEFORE * max(one.start for one in calm))
    began, row, first = time.monotonic(), 0, 0.0
    while time.monotonic() < began + NORMAL_WITHIN + LIMIT:
        at = time.monotonic() - began
        one = await quiet.call()
        row, first = (
            (row + 1, first if row else at) if one.submit <= submit and one.start <= start else (0, 0.0)
        )
        if row == IN_A_ROW:
            return first
        await asyncio.sleep(0.1)
    return None


def _growth(memory: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    before, values = memory[0][1], [held for _, held in memory[1:]] or [memory[0][1]]
    fifth = max(1, len(values) // 5)
    return before, max(values) - before, median(values[-fifth:]) - median(values[fifth : 2 * fifth] or values)


def _judged(seen: Seen, growth: dict[str, tuple[float, float, float]]) -> list[str]:
    found = [f"{times} times {text}" for text, times in seen.wrong.items()]
    for name, (_, most, late) in growth.items():
        if most > GROWTH_MEGABYTES or late > STAYS_MEGABYTES:
            found.append(f"memory of {name} grew by {most:.1f} MB, {late:.1f} MB of it late")
    if seen.normal_after is None or seen.normal_after > NORMAL_WITHIN:
        found.append(f"not as before within {NORMAL_WITHIN:g} s: {seen.normal_after}")
    if not any(not status.startswith("202") for status in seen.answers):
        found.append("nobody was refused: that was no overload")
    return found


def told(outcome: Outcome) -> str:
    """Figures for the screen."""
    seen = outcome.seen
    lines = [f"offered {outcome.offered:.0f} a second, for {outcome.plan.seconds:g} s:"]
    lines += [f"  {count:7} x {status}" for status, count in seen.answers.most_common()]
    lines.append(
        f"  {seen.answers['202'] / outcome.plan.seconds:.1f} accepted a second, of {outcome.plan.capacity:g} that the "
        "backends could do"
    )
    for status, took in sorted(seen.took.items()):
        ranked = sorted(took)
        lines.append(
            f"  {status}: answered within {1000 * median(ranked):.0f} ms (median), "
            f"{1000 * ranked[int(0.99 * len(ranked))]:.0f} ms (p99)"
        )
    for name, (before, most, late) in outcome.growth.items():
        lines.append(
            f"  {name}: {before:.0f} MB before, at most {most:+.1f} MB, from the second fifth to the last "
            f"{late:+.1f} MB (bounds {GROWTH_MEGABYTES:g} and {STAYS_MEGABYTES:g})"
        )
    slowest = max(one.submit for one in seen.calm), max(one.start for one in seen.calm)
    after = "never" if seen.normal_after is None else f"after {seen.normal_after:.1f} s"
    lines.append(
        f"  without load: submitted within {1000 * slowest[0]:.0f} ms, began within {1000 * slowest[1]:.0f} ms; "
        f"as before {after} (bound {NORMAL_WITHIN:g} s)"
    )
    lines.append(f"  {len(seen.accepted)} accepted jobs, all of them looked up in the database at the end")
    lines += [f"  FOUND: {text}" for text in outcome.found] or ["  nothing lost, doubled, stuck or wrong"]
    return "\n".join(lines)
