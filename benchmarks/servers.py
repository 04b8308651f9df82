"""Processes of a run: started on free loopback ports, polled until they answer, stopped whatever happens."""

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import psutil

from benchmarks.png import noise

HOST: Final = "127.0.0.1"
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.02
ANSWER_SECONDS: Final = 180.0
LINE_LIMIT: Final = 64 * 1024 * 1024
COMMAND: Final = Path(sys.executable).with_name("comfy-api")
_PORTS: Final = iter(random.sample(range(20_000, 32_000), 2_000))
ROOT: Final = Path(__file__).resolve().parent.parent


class DidNotStart(Exception):
    """A process ended, or did not answer in time; with the end of what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens, or that waits for orders on its standard input."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_seconds(self) -> float:
        """What it and all that it started have used of processors so far."""
        return cpu_seconds(self.process.pid)

    async def ask(self, order: str, **arguments: Any) -> Any:
        """Give an order (see `orders.py`) and return its answer."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("this process takes no orders")
        self.process.stdin.write(orjson.dumps({"order": order, **arguments}) + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.process.stdin.drain()
            while answer := await self.process.stdout.readline():
                if answer.startswith(b"{"):
                    document = orjson.loads(answer)
                    if "fault" in document:
                        raise RuntimeError(f"{order}: {document['fault']}")
                    return document["answer"]
        raise RuntimeError(f"{order}: the process ended")


def cpu_seconds(pid: int) -> float:
    """What a process has used of processors so far, with its children, also those that have ended."""
    root = psutil.Process(pid)
    times = [root.cpu_times()]
    total = float(times[0].children_user + times[0].children_system)
    for one in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times.append(one.cpu_times())
    return total + sum(one.user + one.system for one in times)


def free_port() -> int:
    """Each port once a run, and none of those that the system gives to connections that go out."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no port is free")


@asynccontextmanager
async def started(
    command: Sequence[str | Path],
    *,
    folder: Path,
    port: int,
    ready: str | None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """A process that runs until the block is left; `ready` is the path that answers 200 once it is."""
    said = _ready_folder(folder) / f"process-{port}.log"
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**inherited, "HOME": str(folder), "PYTHONPATH": python_path, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_LIMIT,
        )
        server = Server(process, port)
        try:
            if ready is not None:
                await _answering(server, ready, said)
            yield server
        finally:
            await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        # Reads what is left as well: a full pipe would keep the process from ending.
        await asyncio.wait_for(process.communicate(), STOP_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answering(server: Server, path: str, said: Path) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as http:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while server.process.returncode is None:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with http.get(server.url + path) as answer:
                            if answer.status == 200:
                                return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
    raise DidNotStart(last_words(said))


def _ready_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def last_words(said: Path) -> str:
    return said.read_text(errors="replace")[-2000:] or "no answer, and no word why"


def _picture(folder: Path) -> Path:
    path = _ready_folder(folder) / "fixed.png"
    path.write_bytes(noise())
    return path


@asynccontextmanager
async def simulator(
    folder: Path, *, seconds_per_prompt: float = 0.05, cleanup_seconds: float = 0.0
) -> AsyncIterator[Server]:
    """A ComfyUI stand-in in a process of its own that gives a 500 kB PNG for every prompt."""
    picture, port = _picture(folder), free_port()
    command = [
        sys.executable, "-m", "comfy_api_service.simulator", "--port", str(port), "--control", "--no-previews",
        "--seconds-per-load", "0", "--seconds-per-prompt", str(seconds_per_prompt),
        "--cleanup-seconds", str(cleanup_seconds), "--fixed-output", str(picture),
    ]  # fmt: skip
    async with started(command, folder=folder, port=port, ready="/system_stats") as server:
        yield server


def serve_command(port: int, data: Path, comfyui_url: str) -> list[str | Path]:
    return [COMMAND, "serve", "--port", str(port), "--data-dir", data, "--comfyui-url", comfyui_url]


SETTINGS: Final = {"LOG_FORMAT": "json", "SHUTDOWN_GRACE": "0"}


@asynccontextmanager
async def service(folder: Path, comfyui_url: str, **settings: str) -> AsyncIterator[Server]:
    """`comfy-api serve`, once it knows what its backend has."""
    port = free_port()
    command = serve_command(port, folder / "data", comfyui_url)
    environment = {**SETTINGS, **settings}
    async with started(command, folder=folder, port=port, ready="/ping", environment=environment) as server:
        await inventory_known(server)
        yield server


@asynccontextmanager
async def api(folder: Path, **settings: str) -> AsyncIterator[Server]:
    """`comfy-api api`; `settings` name the database. Results are in the folder, unless they go to S3."""
    port = free_port()
    command: list[str | Path] = [COMMAND, "api", "--port", str(port), "--data-dir", folder / "data"]
    environment = {**SETTINGS, **settings}
    async with started(command, folder=folder, port=port, ready="/ping", environment=environment) as server:
        yield server


@asynccontextmanager
async def worker(folder: Path, urls: Sequence[str], **settings: str) -> AsyncIterator[Server]:
    """`comfy-api worker` for these ComfyUI servers; `settings` name the database."""
    port = free_port()
    command: list[str | Path] = [COMMAND, "worker", "--data-dir", folder / "data"]
    for url in urls:
        command += ["--comfyui-url", url]
    environment = {**SETTINGS, "METRICS_PORT": str(port), **settings}
    async with started(
        command, folder=folder, port=port, ready="/health/live", environment=environment
    ) as server:
        yield server


async def inventory_known(server: Server) -> None:
    async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession(server.url) as http:
        while True:
            async with http.get("/models") as answer:
                if answer.status == 200 and (await answer.json())["models"]:
                    return
            await asyncio.sleep(POLL_SECONDS)
