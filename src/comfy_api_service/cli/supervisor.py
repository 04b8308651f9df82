"""A local ComfyUI: started with the service, restarted when it dies, stopped with the service.

Its output goes to stderr, line by line, with a prefix. See `keeper` for how it ends when the service is
killed.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.cli.output import say

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
STEADY: Final = 60.0
"""Seconds of life after which an end counts as the first one again."""
GRACE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""
LAST_WORDS: Final = 1.0
"""Seconds to wait for output that is still in the pipe after the end."""
PREFIX: Final = "comfyui | "
LONGEST_LINE: Final = 8192
CANNOT_START: Final = 127
_KEEPER: Final = Path(__file__).with_name("keeper.py")
_PYTHONS: Final = (
    "venv/bin/python",
    ".venv/bin/python",
    "venv/Scripts/python.exe",
    ".venv/Scripts/python.exe",
)


@dataclass(frozen=True, slots=True)
class LocalComfyUI:
    """What is started: `arguments` come before the address, which is this program's to choose."""

    folder: Path
    python: str
    port: int
    arguments: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> tuple[str, ...]:
        return (self.python, "main.py", *self.arguments, "--listen", "127.0.0.1", "--port", str(self.port))


def local_comfyui(folder: Path, *, port: int, python: str | None = None, arguments: str = "") -> LocalComfyUI:
    """Checks that the folder is one of ComfyUI, and finds its interpreter. Raises `Fault`."""
    folder = folder.expanduser().absolute()
    if not (folder / "main.py").is_file():
        raise Fault(
            f"There is no main.py in {folder}.",
            "Give --comfyui-dir the folder that ComfyUI was cloned or unpacked to.",
            exit_code=ExitCode.USAGE,
        )
    try:
        split = tuple(shlex.split(arguments))
    except ValueError as error:
        raise Fault(
            f"--comfyui-args cannot be read: {error}.",
            "Quote as in a shell: --comfyui-args '--cpu --preview-method auto'.",
            exit_code=ExitCode.USAGE,
        ) from None
    own = next((str(folder / name) for name in _PYTHONS if (folder / name).is_file()), None)
    return LocalComfyUI(folder, python or own or sys.executable, port, split)


class Backoff:
    """How long to wait before the next start: 1 s, doubled up to 60 s, from the start after a steady life."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def after(self, lived: float) -> float:
        if lived >= STEADY:
            self._next = FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause


class Supervisor:
    """Keeps one ComfyUI alive until `run` is cancelled, then stops it and all that it started."""

    def __init__(
        self,
        comfyui: LocalComfyUI,
        *,
        write: Callable[[str], None] = say,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        grace: float = GRACE,
    ) -> None:
        self._comfyui = comfyui
        self._write = write
        self._sleep = sleep
        self._monotonic = monotonic
        self._grace = grace

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            began = self._monotonic()
            try:
                status = await self._live()
            except OSError as error:
                self._write(f"{PREFIX}cannot start: {error.strerror}")
                status = CANNOT_START
            pause = backoff.after(self._monotonic() - began)
            self._write(f"{PREFIX}ended ({_meaning(status)}); starting again in {pause:g} s")
            await self._sleep(pause)

    async def _live(self) -> int:
        """One life of ComfyUI; its exit status. Cancelled, it is stopped first."""
        async with _output() as (reader, inherited):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_KEEPER), str(self._grace), *self._comfyui.command),
                cwd=self._comfyui.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=PIPE,
                stdout=inherited,
                stderr=STDOUT,
                start_new_session=True,
            )
            inherited.close()
            copying = asyncio.create_task(self._copy(reader))
            try:
                return await process.wait()
            finally:
                await asyncio.shield(self._stop(process))
                await asyncio.wait({copying}, timeout=LAST_WORDS)
                copying.cancel()

    async def _stop(self, process: Process) -> None:
        """Closing its pipe tells the keeper; whatever of its group is left then is killed."""
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace + 5):
                await process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _copy(self, reader: asyncio.StreamReader) -> None:
        async for line in lines(reader):
            self._write(PREFIX + line)


@contextlib.asynccontextmanager
async def _output() -> AsyncIterator[tuple[asyncio.StreamReader, FileIO]]:
    """A pipe: its reader, closed at the end even if a stray process holds the other side; and that side."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    with FileIO(writing, "wb") as inherited:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), FileIO(reading, "rb")
        )
        try:
            yield reader, inherited
        finally:
            transport.close()


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines as a terminal would show them at last: what a progress bar overwrote is left out.

    A line without an end is cut at 8 KiB: no output can fill the memory.
    """
    rest = b""
    while chunk := await stream.read(65_536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield _shown(line)
        rest = rest.rstrip(b"\r").rpartition(b"\r")[2] + (b"\r" if rest.endswith(b"\r") else b"")
        if len(rest) > LONGEST_LINE:
            yield _shown(rest)
            rest = b""
    if rest.strip():
        yield _shown(rest)


def _shown(line: bytes) -> str:
    last = line.rstrip(b"\r").rpartition(b"\r")[2]
    return last[:LONGEST_LINE].decode(errors="replace").rstrip()


def _meaning(status: int) -> str:
    """A shell's exit status in words."""
    number = -status if status < 0 else status - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"


@contextlib.asynccontextmanager
async def supervised(comfyui: LocalComfyUI, **options: Any) -> AsyncIterator[Supervisor]:
    """A ComfyUI that lives as long as this context."""
    supervisor = Supervisor(comfyui, **options)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
