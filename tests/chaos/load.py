"""Callers of the service: they submit, look, cancel and insist, and write down every answer they got."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from comfy_api_service.domain.errors import TABLE, Code

PATIENCE: Final = 12.0
"""Seconds after which a caller gives up on an answer; a service that is whole answers long before."""
PACE: Final = 0.18
"""Seconds between two submissions of a caller."""
BACKLOG: Final = 25
"""A caller holds back while so many of its own jobs are open: the end is to be reached in time."""
ENDS: Final = frozenset({"succeeded", "failed", "canceled"})
_EXPECTED: Final = frozenset({Code.CONFLICT, Code.SERVICE_UNAVAILABLE, Code.BACKEND_UNAVAILABLE})


@dataclass
class Told:
    """What the callers know. A key is one wish, however often it was sent."""

    jobs: dict[str, str] = field(default_factory=dict)
    """The job that each key was given, as first acknowledged."""
    sent: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)
    """The first terminal status that anybody saw of a job."""
    cancels: set[str] = field(default_factory=set)
    """Jobs that somebody asked to cancel."""
    errors: Counter[str] = field(default_factory=Counter)
    """Named errors, by code."""
    deaf: list[str] = field(default_factory=list)
    """Answers that were cut, refused or did not come in time."""
    wrong: list[str] = field(default_factory=list)
    """Answers that should never be given."""


class _Spread:
    """Speaks through any of several clients."""

    def __init__(self, doors: Sequence[httpx2.Client], rng: random.Random) -> None:
        self._doors = doors
        self._rng = rng

    def request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        return self._rng.choice(self._doors).request(method, path, **content)


class Callers:
    """Two threads that work until told to stop."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        """`urls`: of the processes that answer; each call goes to any of them."""
        self.told = Told()
        self._urls = urls
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._acknowledged = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, args=(number, random.Random(f"{seed}/{number}")), daemon=True)
            for number in range(2)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(3 * PATIENCE)
            assert not thread.is_alive(), "a caller hangs"

    def until_acknowledged(self, more: int, limit: float) -> bool:
        """Wait for so many more acknowledged jobs; whether they came within `limit` seconds."""
        with self._acknowledged:
            wanted = len(self.told.jobs) + more
            return self._acknowledged.wait_for(lambda: len(self.told.jobs) >= wanted, limit)

    def _work(self, number: int, rng: random.Random) -> None:
        mine: list[str] = []
        count = 0
        with ExitStack() as stack:
            doors = [
                stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False))
                for url in self._urls
            ]
            client = _Spread(doors, rng)
            while not self._stop.is_set():
                if len(mine) < BACKLOG:
                    count += 1
                    job_id = self._submit(client, f"wish-{number}-{count}", rng)
                    if job_id is not None:
                        mine.append(job_id)
                        if rng.random() < 0.06:
                            self._cancel(client, job_id)
                        if rng.random() < 0.08:  # one that may be running
                            self._cancel(client, rng.choice(mine))
                if mine:
                    self._look(client, rng.choice(mine), mine)
                self._stop.wait(PACE * rng.uniform(0.5, 1.5))

    def _submit(self, client: _Spread, key: str, rng: random.Random) -> str | None:
        """Insist, with the same key, until it is acknowledged or the callers go home."""
        body = self._body(client, rng)
        self.told.sent.add(key)
        while not self._stop.is_set():
            answer = self._ask(client, "POST", "/api/v1/jobs", json=body, headers={"Idempotency-Key": key})
            if answer is None:
                self._stop.wait(0.3)
            elif answer.status_code in {200, 202}:
                job_id = str(answer.json()["job_id"])
                with self._acknowledged:
                    before = self.told.jobs.setdefault(key, job_id)
                    self._acknowledged.notify_all()
                if before != job_id:
                    self.told.wrong.append(f"{key} made {before} and {job_id}")
                if rng.random() < 0.1:  # as one whose answer was lost behind the proxy
                    continue
                return job_id
            else:
                self._stop.wait(0.3)
        return None

    def _body(self, client: _Spread, rng: random.Random) -> dict[str, Any]:
        """What is wished for."""
        del client
        return {"prompt": "a lighthouse", "steps": 4, "width": 64, "height": 64,
                "seed": rng.getrandbits(48), "batch_size": rng.choice((1, 1, 1, 2))}  # fmt: skip

    def _cancel(self, client: _Spread, job_id: str) -> None:
        self.told.cancels.add(job_id)
        self._ask(client, "DELETE", f"/api/v1/jobs/{job_id}")

    def _look(self, client: _Spread, job_id: str, mine: list[str]) -> None:
        answer = self._ask(client, "GET", f"/api/v1/jobs/{job_id}")
        if answer is not None and answer.status_code == 200:
            status = answer.json()["status"]
            if status in ENDS:
                self.told.ends.setdefault(job_id, status)
                mine.remove(job_id)
        elif answer is not None and answer.status_code == 404:
            self.told.wrong.append(f"{job_id} was acknowledged and is not found")

    def _ask(self, client: _Spread, method: str, path: str, **content: Any) -> httpx2.Response | None:
        """An answer, or None if there was none; every error is held to what was promised of errors."""
        begun = time.monotonic()
        try:
            answer = client.request(method, path, **content)
        except httpx2.TransportError as fault:
            self.told.deaf.append(f"{method}: {type(fault).__name__} after {time.monotonic() - begun:.1f} s")
            return None
        if answer.status_code >= 400 and answer.status_code != 404:
            self._judge(answer)
        return answer

    def _judge(self, answer: httpx2.Response) -> None:
        try:
            code = Code(answer.json()["error"]["code"])
        except (ValueError, KeyError, TypeError):
            self.told.wrong.append(f"an error without a name: {answer.status_code}")
            return
        self.told.errors[code] += 1
        if code not in _EXPECTED or TABLE[code].http != answer.status_code:
            self.told.wrong.append(f"{answer.status_code} {code}")
        if answer.status_code in {429, 503} and "Retry-After" not in answer.headers:
            self.told.wrong.append(f"{code} without Retry-After")
