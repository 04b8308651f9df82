"""One run of a cell: two ComfyUI servers, the service, what it needs, callers, lines between them, faults."""

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import httpx2
from tests.chaos import settable_clock
from tests.chaos.backend import Backend
from tests.chaos.launcher import FOLDER, NAME
from tests.chaos.load import Callers
from tests.chaos.matrix import Command, Row, Surroundings
from tests.chaos.outages import Server
from tests.chaos.proxy import Line, lines
from tests.chaos.sites import SHARED
from tests.chaos.trap import FIRED, ORDERS
from tests.support.processes import Process
from tests.support.schema import bound

ROOT: Final = Path(__file__).parents[2]
BACKENDS: Final = 2
SHARED_POINTS: Final = 12
"""Failpoints tried in a run of several processes: each costs the start of one, and one machine has tried most."""
LAUNCHER: Final = "tests.chaos.launcher"
"""The module that the service's processes are started by."""
LIMIT: Final = 60.0
"""Seconds within which whatever is waited for comes, when it comes at all."""


@dataclass(frozen=True, slots=True)
class Form:
    """How long the faults last and how many there are."""

    stop_seconds: float
    """The long stop; there are shorter ones, too."""
    times: int
    """Faults of one kind in a run."""
    points: int | None
    """Failpoints tried in a run; None: a share, so that all seeds together try each (on one machine)."""
    seeds: int


FULL: Final = Form(stop_seconds=30.0, times=2, points=None, seeds=2)
SHORT: Final = Form(stop_seconds=1.5, times=1, points=1, seeds=1)


class Scene:
    """Everything that a fault may touch, by name."""

    backends_started: int = BACKENDS
    settings: ClassVar[Mapping[str, str]] = {}
    """Of the service, beside those that every scene has."""
    launcher: ClassVar[str] = LAUNCHER

    def __init__(self, folder: Path, row: Row, form: Form, seed: int, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.form = form
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.signals = 0
        self.missed: list[str] = []
        """Failpoints that nothing came by."""
        self.starts = 0
        self.backends: list[Backend] = []
        self.doors: dict[str, Line] = {}
        """The callers' lines to the processes that answer, by their names."""
        self._stack = row.stack
        self._around: Surroundings | None = None
        self._processes: dict[str, Process] = {}
        self._orders = itertools.count()

    def open(self, stack: ExitStack) -> None:
        """Start everything; the stack ends it."""
        (self.folder / FIRED).touch()
        self._order([])
        self.set_clocks()
        make = stack.enter_context(lines())
        self.doors = {command.name: make() for command in self._stack.commands if command.answers}
        if self._stack.surrounded is not None:
            place = self.folder / "servers"
            place.mkdir()
            self._around = stack.enter_context(self._stack.surrounded(place, make, self.names()))
            stack.enter_context(bound(self.folder, self.server("PostgreSQL").url))
        for number in range(self.backends_started):
            place = self.folder / f"comfyui-{number}"
            place.mkdir()
            backend = Backend(place, make())
            stack.callback(backend.close)
            backend.start()
            self.backends.append(backend)
        stack.callback(self._close)
        self.start()
        urls = [f"http://127.0.0.1:{door.port}" for door in self.doors.values()]
        self.callers = Callers(urls, self.seed)

    @property
    def data(self) -> Path:
        """Where the database is looked for."""
        return self.folder / "data"

    @property
    def results(self) -> Path:
        """Where files of results are."""
        elsewhere = None if self._around is None else self._around.results
        return elsewhere or self.data / "artifacts"

    def folder_of(self, name: str) -> Path:
        """A process's data folder."""
        return self.folder / f"data of {name}" if self._stack.shared else self.data

    # --- what faults do

    def hit(self, kind: str, *, signalled: bool = False) -> None:
        """Count a fault that was really injected."""
        self.faults[kind] += 1
        self.signals += signalled

    def go_on(self, jobs: int = 3) -> None:
        """Let the callers get on; a service that is gone or deaf may hold them up."""
        self.callers.until_acknowledged(jobs, 3.0)

    def a_while(self, shortest: float, longest: float) -> None:
        """Faults come at moments that nobody chose."""
        time.sleep(self.rng.uniform(shortest, longest))

    def until(self, condition: Callable[[], object], limit: float = LIMIT, *, pause: float = 0.02) -> bool:
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(pause)
        return True

    # --- the service

    @property
    def shared(self) -> bool:
        """Several workers share the backends."""
        return self._stack.shared

    def names(self, *, drives: bool = False) -> list[str]:
        """Of all processes, or of those that drive backends."""
        return [command.name for command in self._stack.commands if command.drives or not drives]

    def one_of(self, who: str = "") -> str:
        """The name of a process, one of those whose names begin so; without it, of one that drives backends."""
        return self.rng.choice([name for name in self.names(drives=not who) if name.startswith(who)])

    def process(self, name: str) -> Process:
        return self._processes[name]

    def server(self, name: str) -> Server:
        """One of those that the processes share."""
        assert self._around is not None, "this stack has no servers"
        return self._around.servers[name]

    def servers(self) -> list[Server]:
        return [] if self._around is None else list(self._around.servers.values())

    def processes(self) -> list[Process]:
        return list(self._processes.values())

    def fallen(self) -> bool:
        """Whether any process has ended."""
        return any(process.popen.poll() is not None for process in self.processes())

    def start(self) -> None:
        """Start what does not live, as often as an order for its start kills it."""
        for command in self._stack.commands:
            while not self._lives(command):
                self._begin(command)
        for name, door in self.doors.items():
            door.lead_to(int(self.process(name).url.rpartition(":")[2]))
        self.starts += 1

    def _lives(self, command: Command) -> bool:
        process = self._processes.get(command.name)
        return process is not None and process.popen.poll() is None

    def _begin(self, command: Command) -> None:
        if command.name in self._processes:
            self._processes[command.name].close()
        arguments = [self.launcher, *command.arguments]
        process = Process(arguments, folder=self.folder, environment=self.environment(command.name))
        self._processes[command.name] = process
        self.until(partial(_begun, process))
        if not process.url and process.popen.poll() != -signal.SIGKILL:
            raise AssertionError(f"{command.name} does not start:\n" + "\n".join(process.output[-20:]))

    def environment(self, name: str) -> dict[str, str]:
        """What the process of this name is told."""
        return {
            "PYTHONPATH": str(ROOT),
            FOLDER: str(self.folder),
            NAME: name,
            "DATA_DIR": str(self.folder_of(name)),
            "COMFYUI_URL": ",".join(f"http://127.0.0.1:{backend.line.port}" for backend in self.backends),
            **({} if self._around is None else self._around.environment(name)),
            **self.settings,
        }

    def _close(self) -> None:
        for process in self.processes():
            process.close()

    def kill(self, name: str) -> None:
        """kill -9 of a process of the service."""
        self.process(name).kill()
        self.hit(f"kill -9 of {_kind(name)}", signalled=True)

    def restart(self, name: str) -> None:
        """SIGTERM, and start again when it has ended."""
        code = self.process(name).terminate(LIMIT)
        assert code in {0, -signal.SIGKILL}, f"a drain ends with 0, not {code}"  # -9: an order killed it
        self.hit(f"SIGTERM to {_kind(name)}", signalled=True)
        self.start()

    def set_clocks(self, *, offset: float = 0.0, rate: float = 1.0, name: str | None = None) -> None:
        """The clock of the machine that this process runs on, or of all."""
        for one in self.names() if name is None else [name]:
            settable_clock.set_clock(self.folder / one, offset=offset, rate=rate)

    def carry_on(self) -> None:
        """SIGCONT to whatever stands still."""
        for process in self.processes():
            process.popen.send_signal(signal.SIGCONT)

    def stop(self, process: Process, seconds: float, whose: str) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        process.popen.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.popen.send_signal(signal.SIGCONT)
        self.hit(f"stop of {whose}", signalled=True)

    def cancel_a_running_one(self) -> None:
        """If there is one, and if the service still answers: a failpoint may kill it meanwhile."""
        with (
            suppress(httpx2.TransportError),
            httpx2.Client(base_url=self._answering().url, timeout=10, trust_env=False) as client,
        ):
            found = client.get("/api/v1/jobs", params={"status": "running", "limit": 1})
            for job in found.json()["jobs"] if found.is_success else ():
                self.callers.told.cancels.add(job["job_id"])
                client.delete(f"/api/v1/jobs/{job['job_id']}")

    # --- failpoints

    def arm(self, points: dict[str, str], who: str = "") -> list[str]:
        """Order what happens where (`kill`, `stop`, `raise`, `slow` by point), instead of earlier orders, to the
        first process whose name begins with `who`.
        """
        orders = [
            {"id": f"o{next(self._orders)}", "point": point, "action": action, "who": who}
            for point, action in points.items()
        ]
        self._order(orders)
        return [one["id"] for one in orders]

    def _order(self, orders: list[dict[str, str]]) -> None:
        fresh = self.folder / "orders.new"
        fresh.write_text(json.dumps(orders))
        os.replace(fresh, self.folder / ORDERS)  # noqa: PTH105 - whole or not at all

    def carried_out(self, orders: list[str]) -> bool:
        return set(orders) <= set((self.folder / FIRED).read_text().split())

    def share(self, points: list[str]) -> list[str]:
        """This run's share of the failpoints, in an order of its own."""
        mixed = sorted(points)
        random.Random(0).shuffle(mixed)
        if self.form.points is not None:
            mixed = self.rng.sample(mixed, self.form.points)
        else:
            mixed = mixed[self.seed % self.form.seeds :: self.form.seeds]
            if self.shared:
                mixed = sorted(mixed, key=lambda point: not point.startswith(SHARED))[:SHARED_POINTS]
        self.rng.shuffle(mixed)
        return mixed

    # --- the end

    def heal(self) -> None:
        """Take back what can be taken back, and see that all of it lives."""
        self._order([])
        self.set_clocks()
        for door in self.doors.values():
            door.heal()
        for server in self.servers():
            server.heal()
        for backend in self.backends:
            backend.line.heal()
            if backend.process.popen.poll() is not None:
                backend.start()
            backend.process.popen.send_signal(signal.SIGCONT)
            backend.fault("heal")
        self.carry_on()
        self.start()

    def _answering(self) -> Process:
        """A process that answers callers and lives, if there is one."""
        processes = [self.process(name) for name in self.doors]
        return next((one for one in processes if one.popen.poll() is None), processes[0])

    def open_jobs(self) -> int | None:
        """How many jobs have not ended, 100 at most; None if the service does not say."""
        try:
            answer = httpx2.get(
                f"{self._answering().url}/api/v1/jobs",
                params={"status": ["queued", "running"], "limit": 100},
                timeout=10,
                trust_env=False,
            )
        except httpx2.TransportError:
            return None
        return len(answer.json()["jobs"]) if answer.is_success else None


def _kind(name: str) -> str:
    """A process's name without its number."""
    return name.rstrip(" 0123456789")


def _begun(process: Process) -> bool:
    """Whether it listens, or ended before."""
    return bool(process.url) or process.popen.poll() is not None


def lasting(scene: Scene, seconds: float, *, short: float) -> float:
    """`seconds` in the campaign, `short` in `make test`."""
    return seconds if scene.form.stop_seconds == FULL.stop_seconds else short


@contextmanager
def scene(folder: Path, row: Row, form: Form, seed: int, name: str) -> Iterator[Scene]:
    """All of it, started; ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        made = Scene(folder, row, form, seed, random.Random(f"{name}/{seed}"))
        made.open(stack)
        yield made
