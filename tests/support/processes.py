"""The real commands as processes, for tests that kill them with real signals."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from tests.support.schema import url_of

STARTED_WITHIN = 30.0
READY = r"(?:listens on|simulated ComfyUI(?: [\d.]+)? at) (https?://[\w.:\[\]]+)|worker (wrk_\w+) is ready"


class Process:
    """A command that says at which address it listens; its output is kept."""

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, environment: dict[str, str] | None = None
    ) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("COMFY")}
        self.output: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self.popen = subprocess.Popen(
            [sys.executable, "-u", "-m", *arguments],
            cwd=folder,
            env={**clean, "LOG_FORMAT": "json", "NO_COLOR": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.output.append(line.rstrip())
            found = re.search(READY, line)
            if found and not self.url:
                self.url = found[1] or found[2]
                self._listening.set()
        self._listening.set()

    def wait_listening(self) -> None:
        assert self._listening.wait(STARTED_WITHIN), "\n".join(self.output)
        assert self.url, "\n".join(self.output)

    def kill(self) -> None:
        """kill -9: nothing is closed, nothing is said."""
        self.popen.kill()
        self.popen.wait(10)

    def terminate(self, limit: float = 40.0) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(limit)

    def close(self) -> None:
        if self.popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(10)
        self._reader.join(10)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextmanager
def simulator(folder: Path, *arguments: str) -> Iterator[Process]:
    process = Process(["comfy_api_service.simulator", "--port", "0", "--control", *arguments], folder=folder)
    try:
        process.wait_listening()
        yield process
    finally:
        process.close()


@contextmanager
def serve(folder: Path, *urls: str, **environment: str) -> Iterator[Process]:
    """`comfy-api serve` on a free port, its data in `folder`/data; on the database that the folder is bound to."""
    database = url_of(folder)
    if database is not None:
        environment = {"DATABASE_URL": database, **environment}
    arguments = ["comfy_api_service", "serve", "--port", "0"]
    for url in urls:
        arguments += ["--comfyui-url", url]
    process = Process(arguments, folder=folder, environment=environment)
    try:
        process.wait_listening()
        yield process
    finally:
        process.close()


@contextmanager
def api(folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    """`comfy-api api` on a free port; `DATABASE_URL` is in `environment`."""
    with _started(["api", "--port", "0", *arguments], folder, environment) as process:
        yield process


@contextmanager
def worker(folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    """`comfy-api worker`, ready; its id is in `url`."""
    with _started(["worker", *arguments], folder, environment) as process:
        yield process


@contextmanager
def _started(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[Process]:
    process = Process(["comfy_api_service", *arguments], folder=folder, environment=environment)
    try:
        process.wait_listening()
        yield process
    finally:
        process.close()


def client(process: Process) -> httpx2.Client:
    return httpx2.Client(base_url=process.url, timeout=30, trust_env=False)


def until_online(api: httpx2.Client) -> None:
    """Wait until a backend takes work."""
    until_health(api, comfyui_status="connected")


def until_health(api: httpx2.Client, **wanted: str) -> dict[str, Any]:
    end = time.monotonic() + STARTED_WITHIN
    while True:
        health: dict[str, Any] = api.get("/health").json()
        if wanted.items() <= health.items():
            return health
        assert time.monotonic() < end, health
        time.sleep(0.05)
