"""Start: from starting `comfy-api serve` to its first answer, against bare FastAPI with the same libraries
imported; and the memory of the service when it has nothing to do.
"""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import MEGABYTE, Check, Options, in_turns, median, ms, say
from benchmarks.servers import (
    HOST,
    READY_SECONDS,
    SETTINGS,
    DidNotStart,
    free_port,
    last_words,
    serve_command,
    service,
    simulator,
    started,
)

REQUEST: Final = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
RETRY_SECONDS: Final = 0.002
IDLE_SECONDS: Final = 5.0
OWN: Final = ("comfy_api_service", "benchmarks", "__main__", "_virtualenv", "__editable__")


async def run(options: Options) -> list[Check]:
    rounds = options.choose(7, 3)
    folder = options.folder / "start"
    numbers = itertools.count()
    async with simulator(folder / "backend") as backend:
        libraries = folder / "libraries.txt"
        libraries.write_text("\n".join(await _libraries(folder, backend.url)))
        existing = folder / "existing"

        async def bare(_: int) -> float:
            port = free_port()
            command: list[str | Path] = [sys.executable, "-m", "benchmarks.bare.start", str(port), libraries]
            return await _first_answer(command, folder, port)

        async def served(data: Path) -> float:
            port = free_port()
            return await _first_answer(serve_command(port, data, backend.url), folder, port)

        await served(existing)
        bares, fresh, again = await in_turns(
            rounds, bare, lambda _: served(folder / f"fresh-{next(numbers)}"), lambda _: served(existing)
        )
        say(
            f"start: bare {ms(median(bares))}, fresh folder {ms(median(fresh))}, existing {ms(median(again))}"
        )
        async with service(folder / "idle", backend.url) as idle:
            await asyncio.sleep(IDLE_SECONDS)
            memory = idle.memory()
    return [
        _check("start on a fresh data folder over bare FastAPI's", fresh, bares),
        _check("start on an existing data folder over bare FastAPI's", again, bares),
        Check(
            "idle memory",
            memory / MEGABYTE,
            150,
            f"after {IDLE_SECONDS:.0f} s beside an idle backend",
            unit="MB",
        ),
    ]


def _check(promise: str, ours: Sequence[float], bares: Sequence[float]) -> Check:
    ratio = median([mine / theirs for mine, theirs in zip(ours, bares, strict=True)])
    return Check(promise, ratio, 3, f"service {ms(median(ours))}, bare {ms(median(bares))}")


async def _first_answer(command: Sequence[str | Path], folder: Path, port: int) -> float:
    """Seconds from starting the process to its first answer."""
    began = time.monotonic()
    async with started(command, folder=folder, port=port, ready=None, environment=SETTINGS) as server:
        async with asyncio.timeout(READY_SECONDS):
            while server.process.returncode is None:
                if await _answers(port):
                    return time.monotonic() - began
                await asyncio.sleep(RETRY_SECONDS)
    raise DidNotStart(last_words(folder / f"process-{port}.log"))


async def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(REQUEST)
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()
    return False


async def _libraries(folder: Path, comfyui_url: str) -> list[str]:
    """Every module of others that `serve` imports until it answers, in its order; a line of `-X importtime` each."""
    port, found = free_port(), []
    command = serve_command(port, folder / "libraries", comfyui_url)
    timed = [sys.executable, "-X", "importtime", *command]
    async with started(timed, folder=folder, port=port, ready="/ping", environment=SETTINGS):
        lines = (folder / f"process-{port}.log").read_text(errors="replace").splitlines()
    for line in lines:
        if line.startswith("import time:") and line.count("|") == 2:
            name = line.rpartition("|")[2].strip()
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and not top.startswith(OWN) and name != "imported package":
                found.append(name)
    return found
