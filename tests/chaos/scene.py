"""One run of a cell: two ComfyUI servers, the service, callers, lines between them, and a fault or some."""

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
from typing import Any, Final

import httpx2
from tests.chaos import settable_clock
from tests.chaos.backend import Backend
from tests.chaos.launcher import FOLDER
from tests.chaos.load import Callers
from tests.chaos.matrix import Command, Row
from tests.chaos.proxy import lines
from tests.chaos.trap import FIRED, ORDERS
from tests.support.processes import Process

ROOT: Final = Path(__file__).parents[2]
BACKENDS: Final = 2
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
    """Failpoints tried in a run; None: a share, so that all seeds together try each."""
    seeds: int


FULL: Final = Form(stop_seconds=30.0, times=3, points=None, seeds=3)
SHORT: Final = Form(stop_seconds=1.5, times=1, points=1, seeds=1)


class Scene:
    """Everything that a fault may touch, by name."""

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
        self.servers: Any = None
        """What the row's own servers are to its faults."""
        self.backends: list[Backend] = []
        self._row = row
        self._environment: Mapping[str, str] = {}
        self._processes: dict[str, Process] = {}
        self._orders = itertools.count()

    def open(self, stack: ExitStack) -> None:
        """Start everything; the stack ends it."""
        (self.folder / FIRED).touch()
        self._order([])
        settable_clock.set_clock(self.folder)
        if self._row.servers is not None:
            place = self.folder / "servers"
            place.mkdir()
            started = stack.enter_context(self._row.servers(place))
            self._environment, self.servers = started.environment, started.found
        make = stack.enter_context(lines())
        self.front = make()
        for number in range(BACKENDS):
            place = self.folder / f"comfyui-{number}"
            place.mkdir()
            backend = Backend(place, make())
            stack.callback(backend.close)
            backend.start()
            self.backends.append(backend)
        stack.callback(self._close)
        self.start()
        self.callers = Callers(f"http://127.0.0.1:{self.front.port}", self.seed)

    @property
    def data(self) -> Path:
        return self.folder / "data"

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
    def service(self) -> Process:
        """The process that callers speak to."""
        return self.process(self._row.commands[0].name)

    def process(self, name: str) -> Process:
        return self._processes[name]

    def processes(self) -> list[Process]:
        return list(self._processes.values())

    def fallen(self) -> bool:
        """Whether any process has ended."""
        return any(process.popen.poll() is not None for process in self.processes())

    def start(self) -> None:
        """Start what does not live, as often as an order for its start kills it."""
        for command in self._row.commands:
            while not self._lives(command):
                self._begin(command)
        self.front.lead_to(int(self.service.url.rpartition(":")[2]))
        self.starts += 1

    def _lives(self, command: Command) -> bool:
        process = self._processes.get(command.name)
        return process is not None and process.popen.poll() is None

    def _begin(self, command: Command) -> None:
        if command.name in self._processes:
            self._processes[command.name].close()
        arguments = ["tests.chaos.launcher", *command.arguments]
        environment = {
            "PYTHONPATH": str(ROOT),
            FOLDER: str(self.folder),
            "DATA_DIR": str(self.data),
            "COMFYUI_URL": ",".join(f"http://127.0.0.1:{backend.line.port}" for backend in self.backends),
            **self._environment,
        }
        process = Process(arguments, folder=self.folder, environment=environment)
        self._processes[command.name] = process
        if not command.listens:
            return
        self.until(partial(_begun, process))
        if not process.url and process.popen.poll() != -signal.SIGKILL:
            raise AssertionError(f"{command.name} does not start:\n" + "\n".join(process.output[-20:]))

    def _close(self) -> None:
        for process in self.processes():
            process.close()

    def kill(self, name: str | None = None) -> None:
        """kill -9 of a process of the service; without a name, of the one that works."""
        name = name or self._row.commands[-1].name
        self.process(name).kill()
        self.hit(f"kill -9 of {name}", signalled=True)

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
            httpx2.Client(base_url=self.service.url, timeout=10, trust_env=False) as client,
        ):
            found = client.get("/api/v1/jobs", params={"status": "running", "limit": 1})
            for job in found.json()["jobs"] if found.is_success else ():
                self.callers.told.cancels.add(job["job_id"])
                client.delete(f"/api/v1/jobs/{job['job_id']}")

    # --- failpoints

    def arm(self, points: dict[str, str]) -> list[str]:
        """Order what happens where (`kill`, `stop`, `raise`, `slow` by point), instead of earlier orders."""
        orders = [
            {"id": f"o{next(self._orders)}", "point": point, "action": action}
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
        self.rng.shuffle(mixed)
        return mixed

    # --- the end

    def heal(self) -> None:
        """Take back what can be taken back, and see that all of it lives."""
        self._order([])
        settable_clock.set_clock(self.folder)
        self.front.heal()
        for backend in self.backends:
            backend.line.heal()
            if backend.process.popen.poll() is not None:
                backend.start()
            backend.process.popen.send_signal(signal.SIGCONT)
            backend.fault("heal")
        self.carry_on()
        self.start()

    def open_jobs(self) -> int | None:
        """How many jobs have not ended, 100 at most; None if the service does not say."""
        try:
            answer = httpx2.get(
                f"{self.service.url}/api/v1/jobs",
                params={"status": ["queued", "running"], "limit": 100},
                timeout=10,
                trust_env=False,
            )
        except httpx2.TransportError:
            return None
        return len(answer.json()["jobs"]) if answer.is_success else None


def _begun(process: Process) -> bool:
    """Whether it listens, or ended before."""
    return bool(process.url) or process.popen.poll() is not None


@contextmanager
def scene(folder: Path, row: Row, form: Form, seed: int, name: str) -> Iterator[Scene]:
    """All of it, started; ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        made = Scene(folder, row, form, seed, random.Random(f"{name}/{seed}"))
        made.open(stack)
        yield made
