"""A simulated ComfyUI of the campaign."""

import time
from pathlib import Path
from typing import Any, Final

import httpx2
from tests.chaos.proxy import Line
from tests.support.processes import Process

PROMPT_SECONDS: Final = "0.25"
LIMIT: Final = 60.0


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
        # What a killed one leaves in its temporary folder goes with the run.
        self._process = Process(arguments, folder=self._folder, environment={"TMPDIR": str(self._folder)})
        self._process.wait_listening()
        self.line.lead_to(int(self._process.url.rpartition(":")[2]))

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def fault(self, name: str, **arguments: Any) -> None:
        """One of the simulator's own faults, by its name; one that is restarting is waited for."""
        end = time.monotonic() + LIMIT
        while True:
            try:
                answer = httpx2.post(
                    f"{self.process.url}/_simulator/faults/{name}",
                    json=arguments,
                    timeout=LIMIT,
                    trust_env=False,
                )
            except httpx2.ConnectError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                answer.raise_for_status()
                return

    def remember(self) -> None:
        """Keep what this life of the server did, before it ends."""
        record = httpx2.get(f"{self.process.url}/_simulator/record", timeout=LIMIT, trust_env=False)
        self._kept.append(record.json())

    def records(self) -> list[dict[str, Any]]:
        """What each life did."""
        self.remember()
        return self._kept
