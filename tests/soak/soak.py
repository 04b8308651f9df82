"""The soak: a service under steady load, a fault a minute, what it holds is read all the time; then the judgement."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos import scaled
from tests.chaos.matrix import SINGLE, Cell, Column, Row, Senseless, Stack
from tests.chaos.run import Outcome, ended
from tests.chaos.scene import BACKENDS, LIMIT, SHORT
from tests.chaos.ways import DEATHS
from tests.soak import faults, samples
from tests.soak.callers import Steady
from tests.soak.faults import Fault
from tests.soak.flatness import Verdict, judge
from tests.soak.samples import NOISE, Samples
from tests.soak.stage import Stage

ACCOUNTS: Final = 4
SAMPLE_SECONDS: Final = 5.0
MINUTE: Final = 60.0
LAST_DEATH: Final = 0.35
"""Of the time: afterwards no process ends whose memory is judged, so that it is warm when that begins."""
JUDGED: Final = 0.5
"""Of the time: where the part begins over which growth is judged."""
RECOVERS_WITHIN: Final = 45.0
"""Seconds after a fault within which submissions are acknowledged and jobs end again."""
FEWEST: Final = 10
"""Samples of a process without which nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float
    one_machine: bool
    rate: float = 5.0
    """Submissions a second."""
    every: float = MINUTE
    """Seconds from one fault to the next."""
    seed: int = 1
    sample_seconds: float = SAMPLE_SECONDS
    told_every: float = MINUTE
    only: str | None = None
    """The name of the one fault there is, repeated."""
    backends: int = BACKENDS

    @property
    def stack(self) -> Stack:
        return SINGLE if self.one_machine else scaled.STACK

    @property
    def faults(self) -> tuple[Fault, ...]:
        found = faults.SINGLE if self.one_machine else faults.SCALED
        return tuple(fault for fault in found if self.only in {None, fault.name})

    @property
    def living(self) -> tuple[str, ...]:
        """Processes that are to live through the judged part."""
        return (SINGLE.commands[0].name,) if self.one_machine else faults.LIVING


@dataclass(slots=True)
class Report:
    """What a soak showed."""

    plan: Plan
    outcome: Outcome
    seconds: float
    verdicts: dict[tuple[str, str], Verdict]
    found: list[str]
    recoveries: dict[str, list[float]]
    """By fault: seconds until callers were served and jobs ended again."""
    ends: Mapping[str, int]
    uses: Mapping[str, int]
    cpu: Mapping[str, float]
    tables: dict[str, tuple[int, int, int, int]]
    """Rows and bytes of each table, first and last seen."""
    disk: list[tuple[float, float]]
    """Seconds, and bytes of results and data folders."""
    interrupted: bool

    @property
    def clean(self) -> bool:
        return not self.found and not self.interrupted

    @property
    def growing(self) -> list[str]:
        return [f"{who}: {measure}" for (who, measure), one in self.verdicts.items() if not one.flat]


@dataclass(slots=True)
class Soak:
    """One run; `tell` is given a line a minute."""

    plan: Plan
    tell: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by whoever wants it to end early."""
    samples: Samples = field(default_factory=Samples)
    found: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tables: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    disk: list[tuple[float, float]] = field(default_factory=list)
    _begun: float = 0.0
    _told: tuple[float, int] = (0.0, 0)

    def run(self, folder: Path) -> Report:
        """Raises AssertionError if the service does not start, or does not come back after a fault."""
        folder.mkdir(parents=True, exist_ok=True)
        row = Row("soak", 0, dict.fromkeys(Column, Senseless("It is no row.")), self.plan.stack)
        with ExitStack() as stack:
            scene = Stage(folder, row, SHORT, self.plan.seed, random.Random(f"soak/{self.plan.seed}"))
            scene.backends_started = self.plan.backends
            scene.open(stack)
            scene.admit(["enterprise"] * ACCOUNTS)
            urls = [f"http://127.0.0.1:{door.port}" for door in scene.doors.values()]
            steady = Steady(urls, self.plan.seed, scene.keys, self.plan.rate)
            scene.callers = steady
            self._begun = time.monotonic()
            steady.start()
            assert steady.until_acknowledged(4, LIMIT), "no submission is acknowledged"
            self._watched(scene)
            took = time.monotonic() - self._begun
            scene.heal()
            assert steady.until_acknowledged(2, LIMIT), "no submission is acknowledged at the end"
            steady.stop()
            self.tell("callers have gone home; what is open ends, then all is judged")
            cell = Cell(lambda _: None, deaf=True, repeats=True, may_fail=DEATHS)
            outcome = ended(scene, cell, ("soak", ""), self._begun)
            return self._report(scene, steady, outcome, took)

    # --- while it runs

    def _watched(self, scene: Stage) -> None:
        """Faults from a thread of their own: reading goes on while something stands still."""
        breaking = threading.Thread(target=self._break, args=(scene,), name="faults", daemon=True)
        breaking.start()
        slow = 0.0
        while breaking.is_alive():
            now = time.monotonic() - self._begun
            self._read(scene, now)
            if now >= slow:
                self._read_slow(scene, now)
                self._progress(scene, now)
                slow += self.plan.told_every
            breaking.join(max(0.0, self._begun + now + self.plan.sample_seconds - time.monotonic()))
        self._read_slow(scene, time.monotonic() - self._begun)

    def _break(self, scene: Stage) -> None:
        """Until the time is over: then it ends, with the fault that it is at."""
        turn, end = 0, self._begun + self.plan.seconds
        due = self._begun + self.plan.every / 2
        while True:
            if self.stop.wait(max(0.0, min(due, end) - time.monotonic())) or time.monotonic() >= end:
                return
            at = (time.monotonic() - self._begun) / self.plan.seconds
            fault = self.plan.faults[turn % len(self.plan.faults)]
            turn += 1
            if fault.ends_lives and at > LAST_DEATH:
                continue
            due += self.plan.every
            try:
                fault.inject(scene)
                self._recovered(scene, fault)
            except Exception as error:  # noqa: BLE001 - ends the run and is told
                self.found.append(f"wrong: {fault.name}: {type(error).__name__}: {error}")
                return

    def _recovered(self, scene: Stage, fault: Fault) -> None:
        """Until jobs are acknowledged and jobs end again."""
        began, told = time.monotonic(), scene.callers.told
        ends = len(told.ends)
        acknowledged = scene.callers.until_acknowledged(2, RECOVERS_WITHIN)
        again = scene.until(lambda: len(told.ends) >= ends + 2, RECOVERS_WITHIN, pause=0.05)
        if not (acknowledged and again):
            self.found.append(f"stuck: {fault.name}: not served again after {RECOVERS_WITHIN:.0f} s")
        self.recoveries[fault.name].append(time.monotonic() - began)
        self._fallen(scene)

    def _fallen(self, scene: Stage) -> None:
        """Nobody ends who was not ended."""
        for name in scene.names():
            process = scene.process(name)
            if process.popen.poll() is not None:
                said = "; ".join(process.output[-5:])
                self.found.append(f"wrong: {name} ended by itself with {process.popen.returncode}: {said}")

    # --- what is read

    def _read(self, scene: Stage, now: float) -> None:
        for name in scene.names():
            self.samples.process(now, name, scene.process(name).popen.pid)
        for number, backend in enumerate(scene.backends, 1):
            self.samples.process(now, f"ComfyUI {number}", backend.process.popen.pid)
        if not self.plan.one_machine:
            self.samples.servers(now)
            kept = samples.keys_of_redis(scene.server("Redis").url)
            if kept is not None:
                self.samples.add(now, "Redis", keys=kept[0], memory=kept[1])

    def _read_slow(self, scene: Stage, now: float) -> None:
        if self.plan.one_machine:
            found = samples.tables_of_sqlite(scene.data)
        else:
            found = samples.tables_of_postgres(scene.server("PostgreSQL").url)
        for name, (rows, size) in found.items():
            first = self.tables.get(name, (rows, size, 0, 0))[:2]
            self.tables[name] = (*first, rows, size)
        folders = {scene.results, *(scene.folder_of(name) for name in scene.names())}
        apart = [one for one in folders if not any(other in one.parents for other in folders)]
        self.disk.append((now, float(sum(samples.bytes_below(one) for one in apart))))

    def _progress(self, scene: Stage, now: float) -> None:
        told = scene.callers.told
        before, jobs_before = self._told
        rate = (len(told.jobs) - jobs_before) / (now - before) if now > before else 0.0
        self._told = now, len(told.jobs)
        memory = ", ".join(
            f"{name} {series[-1][1]:.0f} MB"
            for name in scene.names()
            if (series := self.samples.series.get((self._life(scene, name), "memory")))
        )
        last = next(reversed(scene.faults), "none yet")
        self.tell(
            f"{now / MINUTE:5.1f} min  {len(told.jobs)} jobs, {rate:.1f}/s, {len(told.ends)} ends seen, "
            f"{sum(scene.faults.values())} faults (last kind: {last}), {sum(told.errors.values())} errors, "
            f"{len(told.deaf)} unanswered, {len(told.wrong) + len(self.found)} wrong; {memory}"
        )

    def _life(self, scene: Stage, name: str) -> str:
        return f"{name} #{scene.process(name).popen.pid}"

    # --- the end

    def _report(self, scene: Stage, steady: Steady, outcome: Outcome, took: float) -> Report:
        verdicts = {}
        since = took * JUDGED
        for name in self.plan.living:
            life = self._life(scene, name)
            for measure in ("memory", "handles", "threads", "connections"):
                series = self.samples.between(life, measure, since)
                if len(series) >= FEWEST:
                    verdicts[name, measure] = judge(series, NOISE[measure])
                elif measure == "memory" and took >= 8 * FEWEST * self.plan.sample_seconds:
                    self.found.append(f"wrong: {name} did not live through the judged part")
        for measure in ("memory", "keys"):
            series = self.samples.between("Redis", measure, since)
            if len(series) >= FEWEST:
                verdicts["Redis", measure] = judge(series, NOISE[measure])
        report = Report(
            plan=self.plan,
            outcome=outcome,
            seconds=took,
            verdicts=verdicts,
            found=[*self.found, *outcome.found],
            recoveries=dict(self.recoveries),
            ends=Counter(steady.told.ends.values()),
            uses=steady.uses,
            cpu=dict(self.samples.cpu),
            tables=self.tables,
            disk=self.disk,
            interrupted=self.stop.is_set(),
        )
        report.found += [f"wrong: {text} grows" for text in report.growing]
        return report
