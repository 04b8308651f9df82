"""The real commands as processes, in a folder and an environment of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import httpx2
import pytest

LIMIT = 60.0
"""Seconds; nothing waits that long when it works."""


class Command:
    """A running command; its words can be waited for, and it is gone at the end of the test."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.folder = folder
        self._number = len(list(folder.glob("*.out")))
        self._out = folder / f"{self._number}.out"
        self._err = folder / f"{self._number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = self._start(arguments, environment, out, err)

    def _start(
        self, arguments: tuple[str, ...], environment: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "comfy_api_service", *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def said(self, pattern: str, limit: float = LIMIT) -> "re.Match[str]":
        """Wait until stdout or stderr has it."""
        end = time.monotonic() + limit
        while True:
            found = re.search(pattern, f"{self.out}\n{self.err}", re.MULTILINE)
            if found is not None:
                return found
            assert self.process.poll() is None, (
                f"it ended without saying {pattern!r}:\n{self.out}\n{self.err}"
            )
            assert time.monotonic() < end, f"it never said {pattern!r}:\n{self.out}\n{self.err}"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return self.said(r"listens on (https?://\S+)")[1]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, limit: float = LIMIT) -> int:
        """Wait for the exit code."""
        return self.process.wait(limit)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.ended()


class Start(Protocol):
    def __call__(self, *arguments: str, **environment: str) -> Command: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def begin(*arguments: str, **environment: str) -> Command:
        whole = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_COLOR": "1", **environment}
        command = Command(tmp_path, arguments, whole)
        started.append(command)
        return command

    yield begin
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.ended()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Poll a condition with a limit; what it gives at last."""

    def wait(condition: Callable[[], Any], limit: float = LIMIT) -> Any:
        end = time.monotonic() + limit
        while not (found := condition()):
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, trust_env=False) as client:
        yield client
