"""Steady callers of several accounts, at an even pace, with all that clients do: listen, list, fetch, upload, leave."""

import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import httpx2
from PIL import Image
from tests.chaos.load import BACKLOG, ENDS, PATIENCE, Callers, _Spread
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

SCRAPE_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 40.0
"""How long a listener stays; the service says something each 15 s."""


class _Known(_Spread):
    """Speaks for one account, through any door."""

    def __init__(self, key: str, doors: Sequence[httpx2.Client], rng: random.Random) -> None:
        super().__init__(doors, rng)
        self.key = key

    def request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        headers = {**content.pop("headers", {}), "X-API-Key": self.key}
        return super().request(method, path, headers=headers, **content)


class Steady(Callers):
    """`rate` submissions a second from two threads; two more listen to jobs, one reads health and metrics."""

    def __init__(self, urls: Sequence[str], seed: int, keys: Sequence[str], rate: float) -> None:
        super().__init__(urls, seed)
        self.uses: Counter[str] = Counter()
        """What was done beside submitting, by its name."""
        self._keys = keys
        self._between = len(self._threads) / rate
        self._newest: tuple[str, str] | None = None
        """The last acknowledged job, and the key of its account."""
        for work in (self._stream, self._socket, self._scrape):
            rng = random.Random(f"{seed}/{work.__name__}")
            self._threads.append(threading.Thread(target=self._again, args=(work, rng), daemon=True))

    def _work(self, number: int, rng: random.Random) -> None:
        mine: dict[str, list[str]] = {key: [] for key in self._keys[number::2]}
        count = itertools.count()
        due = time.monotonic()
        with ExitStack() as stack:
            doors = [
                stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False))
                for url in self._urls
            ]
            for key in itertools.cycle(mine):
                if self._stop.is_set():
                    return
                self._turn(_Known(key, doors, rng), mine[key], f"wish-{number}-{next(count)}", rng)
                due = max(due + self._between, time.monotonic() - self._between)
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _turn(self, client: _Known, mine: list[str], wish: str, rng: random.Random) -> None:
        if len(mine) < BACKLOG:
            job_id = self._submit(client, wish, rng)
            if job_id is not None:
                self._newest = job_id, client.key
                mine.append(job_id)
                if rng.random() < 0.05:
                    self._cancel(client, rng.choice(mine))
        for _ in range(2):
            if mine:
                chosen = rng.choice(mine)
                self._look(client, chosen, mine)
                if self.told.ends.get(chosen) == "succeeded" and rng.random() < 0.3:
                    self._use(client, "pictures", f"/api/v1/jobs/{chosen}/image")
        for share, name, path in (
            (0.1, "lists", "/api/v1/jobs?limit=20"),
            (0.03, "usage", "/api/v1/usage"),
            (0.03, "models", "/models"),
        ):
            if rng.random() < share:
                self._use(client, name, path)

    def _use(self, client: _Spread, name: str, path: str, **content: Any) -> httpx2.Response | None:
        """What was answered; None if it was no success."""
        method = "POST" if content else "GET"
        answer = self._ask(client, method, path, **content)
        if answer is None or not answer.is_success:
            return None
        self.uses[name] += 1
        return answer

    def _body(self, client: _Spread, rng: random.Random) -> dict[str, Any]:
        """Some begin with a picture that nobody sent before; all are told apart by labels."""
        body = {**super()._body(client, rng), "labels": {"order": str(rng.getrandbits(20))}}
        if rng.random() < 0.05:
            kept = self._use(client, "uploads", "/api/v1/upload", files={"file": _picture(rng)})
            if kept is not None:
                body |= {"image": kept.json()["upload_id"], "strength": 0.5}
                self.uses["jobs with a picture"] += 1
        return body

    # --- the others

    def _again(self, work: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._stop.is_set():
            work(rng)

    def _stream(self, rng: random.Random) -> None:
        """Server-Sent Events of the newest job: to its end, or a client that leaves."""
        newest = self._newest
        if newest is None or self._stop.wait(0.5):
            self._stop.wait(0.1)
            return
        job_id, key = newest
        leaves = rng.random() < 0.3
        try:
            with httpx2.stream(
                "GET",
                f"{rng.choice(self._urls)}/api/v1/jobs/{job_id}/events",
                headers={"X-API-Key": key},
                timeout=WAIT_SECONDS,
                trust_env=False,
            ) as answer:
                for line in answer.iter_lines():
                    if self._stop.is_set() or self._heard(job_id, line.removeprefix("data: ")) or leaves:
                        break
            self.uses["event streams"] += 1
        except httpx2.TransportError as fault:
            self.told.deaf.append(f"events: {type(fault).__name__}")
            self._stop.wait(0.3)

    def _socket(self, rng: random.Random) -> None:
        """A WebSocket for all jobs of an account, for a few seconds; sometimes it goes without a word."""
        url = rng.choice(self._urls).replace("http", "ws", 1)
        try:
            with connect(
                f"{url}/ws/jobs", additional_headers={"X-API-Key": rng.choice(self._keys)}, proxy=None
            ) as socket:
                until = time.monotonic() + rng.uniform(1.0, 10.0)
                while time.monotonic() < until and not self._stop.is_set():
                    try:
                        said = socket.recv(timeout=1.0)
                    except TimeoutError:
                        continue
                    if isinstance(said, str):
                        self._heard("", said)
                if rng.random() < 0.3:
                    socket.socket.close()
            self.uses["sockets"] += 1
        except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as fault:
            self.told.deaf.append(f"socket: {type(fault).__name__}")
            self._stop.wait(0.3)

    def _heard(self, job_id: str, said: str) -> bool:
        """Whether it was the end."""
        if not said.startswith("{"):
            return False
        told = json.loads(said)
        if told.get("type") == "done":
            self.told.ends.setdefault(told.get("job_id", job_id), told["status"])
            return True
        return told.get("status") in ENDS

    def _scrape(self, rng: random.Random) -> None:
        """As a monitoring system would, from each door."""
        del rng
        for url in self._urls:
            for path in ("/metrics", "/health", "/health/ready"):
                try:
                    httpx2.get(f"{url}{path}", timeout=PATIENCE, trust_env=False)
                    self.uses["scrapes"] += 1
                except httpx2.TransportError:
                    pass
        self._stop.wait(SCRAPE_SECONDS)


def _picture(rng: random.Random) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), tuple(rng.randbytes(3))).save(out, "PNG")
    return out.getvalue()
