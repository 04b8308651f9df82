"""One run of a cell: two ComfyUI servers, the service, callers, lines between them, and a fault or some."""

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx2
from tests.chaos import settable_clock
from tests.chaos.launcher import FOLDER
from tests.chaos.load import Callers
from tests.chaos.proxy import Line, lines
from tests.chaos.trap import FIRED, ORDERS
from tests.support.processes import Process

ROOT: Final = Path(__file__).parents[2]
BACKENDS: Final = 2
PROMPT_SECONDS: Final = "0.25"
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


class Backend:
    """A simulated ComfyUI as a process, behind a line of its own."""

    def __init__(self, folder: Path, line: Line) -> None:
        self.line = line
        self._folder = folder
        self._kept: list[dict[str, Any]] = []
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was not started"
        return self._process

    def kill(self) -> None:
        self.remember()
        self.process.kill()

    def start(self) -> None:
        """Or start again; nothing is remembered there."""
        self.close()
        arguments = ["comfy_api_service", "simulate", "--port", "0", "--control",
                     "--prompt-seconds", PROMPT_SECONDS, "--load-seconds", "0"]  # fmt: skip
        self._process = Process(arguments, folder=self._folder)
        self._process.wait_listening()
        self.line.lead_to(int(self._process.url.rpartition(":")[2]))

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def fault(self, name: str, **arguments: Any) -> None:
        """One of the simulator's own faults, by its name."""
        httpx2.post(
            f"{self.process.url}/_simulator/faults/{name}", json=arguments, timeout=LIMIT, trust_env=False
        ).raise_for_status()

    def remember(self) -> None:
        """Keep what this life of the server did, before it ends."""
        record = httpx2.get(f"{self.process.url}/_simulator/record", timeout=LIMIT, trust_env=False)
        self._kept.append(record.json())

    def records(self) -> list[dict[str, Any]]:
        """What each life did."""
        self.remember()
        return self._kept


class Scene:
    """Everything that a fault may touch, by name."""

    def __init__(self, folder: Path, rng: random.Random, form: Form, seed: int, stack: ExitStack) -> None:
        self.folder = folder
        self.rng = rng
        self.form = form
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.signals = 0
        self.missed: list[str] = []
        """Failpoints that nothing came by."""
        self._orders = itertools.count()
        (folder / FIRED).touch()
        self._order([])
        settable_clock.set_clock(folder)
        make = stack.enter_context(lines())
        self.front = make()
        self.backends = []
        for number in range(BACKENDS):
            place = folder / f"comfyui-{number}"
            place.mkdir()
            backend = Backend(place, make())
            stack.callback(backend.close)
            backend.start()
            self.backends.append(backend)
        self._service: Process | None = None
        stack.callback(self._close)
        self.start()
        self.callers = Callers(f"http://127.0.0.1:{self.front.port}", seed)

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
        assert self._service is not None, "it was not started"
        return self._service

    def start(self) -> None:
        """Start it, or start it again: as often as an order for its start kills it."""
        while True:
            self._close()
            arguments = ["tests.chaos.launcher", "serve", "--port", "0", "--data-dir", str(self.data)]
            for backend in self.backends:
                arguments += ["--comfyui-url", f"http://127.0.0.1:{backend.line.port}"]
            environment = {"PYTHONPATH": str(ROOT), FOLDER: str(self.folder)}
            process = self._service = Process(arguments, folder=self.folder, environment=environment)
            self.until(partial(_begun, process))
            if process.url:
                self.front.lead_to(int(process.url.rpartition(":")[2]))
                return
            if process.popen.poll() != -signal.SIGKILL:
                raise AssertionError("the service does not start:\n" + "\n".join(process.output[-20:]))

    def _close(self) -> None:
        if self._service is not None:
            self._service.close()

    def kill(self) -> None:
        self.service.kill()
        self.hit("kill -9 of the service", signalled=True)

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
        self.service.popen.send_signal(signal.SIGCONT)
        if self.service.popen.poll() is not None:
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
def scene(folder: Path, form: Form, seed: int, name: str) -> Iterator[Scene]:
    """All of it, started; ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield Scene(folder, random.Random(f"{name}/{seed}"), form, seed, stack)
