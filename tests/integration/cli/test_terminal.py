"""The client as a process, in a terminal of its own: what it draws, and how it ends when it is told to."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.cli.service import JOB, PREVIEWS, Server, event
from tests.unit.cli.terminal import Terminal

Until = Callable[..., Awaitable[None]]
KITTY = {"TERM": "xterm-kitty"}
ITERM = {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}
WEZTERM = {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}
PLAIN = {"TERM": "xterm-256color"}
FLOOD = [event("preview", status="running", media_type="image/jpeg", data=one) for one in PREVIEWS]


class Command:
    """Its words so far, as bytes; both streams go to the terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.said = b""
        self._master = master
        os.set_blocking(master, False)

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._master, 1 << 20):
                self.said += data

    @property
    def drawn(self) -> int:
        return self.said.count(b"\x1b_Ga=T,f=100,q=2") + self.said.count(b";height=12;")

    async def ended(self) -> tuple[int, Terminal]:
        async with asyncio.timeout(30):
            code = await self.process.wait()
        self.read()
        terminal = Terminal()
        terminal.feed(self.said.decode())
        return code, terminal


@asynccontextmanager
async def inside(kind: Mapping[str, str], server: Server, *arguments: str) -> AsyncIterator[Command]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COMFY_API_URL": server.url, **kind}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comfy_api_service",
        *arguments,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    command = Command(process, master)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, command.read)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


@pytest.fixture
def held(server: Server) -> Server:
    """It sends thirty previews at once, and the end when it is released."""
    server.streams = [
        [event("running", 1, status="running"), *FLOOD, "hold", event("done", 2, status="succeeded")]
    ]
    return server


@pytest.mark.parametrize("kind", [KITTY, ITERM, WEZTERM], ids=["kitty", "iTerm2", "WezTerm"])
async def test_previews_until_the_finished_picture(
    held: Server, until: Until, tmp_path: Path, kind: Mapping[str, str]
) -> None:
    async with inside(kind, held, "generate", "a fox", "-o", str(tmp_path / "fox.png")) as command:
        await until(lambda: command.drawn == 2)  # the first, and the last of the flood when its time has come
        held.released.set()
        code, screen = await command.ended()
    assert code == 0
    assert command.drawn == 2
    assert not screen.pictures
    assert len(screen.finished) == 1
    assert {one.form for one in screen.drawn} == {"PNG" if kind is KITTY else "JPEG"}
    bar, job, path = (line for line in screen.text if line)
    assert "succeeded" in bar
    assert JOB in job
    assert path == str(tmp_path / "fox.png")


async def test_watching_shows_previews_and_leaves_nothing(held: Server, until: Until) -> None:
    async with inside(KITTY, held, "jobs", "watch", JOB) as command:
        await until(lambda: command.drawn)
        held.released.set()
        code, screen = await command.ended()
    assert code == 0
    assert not screen.pictures
    assert not screen.finished
    bar, last = screen.text
    assert "succeeded" in bar
    assert last == f"{JOB} succeeded"


@pytest.mark.parametrize("command", [("generate", "a fox", "-o", "fox.png"), ("jobs", "watch", JOB)])
@pytest.mark.parametrize(("kind", "option"), [(KITTY, ("--no-preview",)), (PLAIN, ())], ids=["off", "plain"])
async def test_no_previews(
    held: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    kind: Mapping[str, str],
    option: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    held.released.set()
    async with inside(kind, held, *command, *option) as running:
        code, screen = await running.ended()
    assert code == 0
    assert not screen.drawn
    assert not screen.finished
    assert held.of(f"/api/v1/jobs/{JOB}/events")[0].query["previews"] == "false"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_generate_cancels_its_job_when_told_to_end(held: Server, until: Until, number: int) -> None:
    async with inside(KITTY, held, "generate", "a fox") as command:
        await until(lambda: command.drawn)
        command.process.send_signal(number)
        code, screen = await command.ended()
    assert code == 130
    assert len(held.of(f"/api/v1/jobs/{JOB}/cancel")) == 1
    assert not screen.pictures
    told, _bar = screen.text
    assert told == f"{JOB} is canceled"
    assert command.said.count(b"\x1b[?25l") == command.said.count(b"\x1b[?25h"), "the cursor stays hidden"


async def test_watching_ends_and_leaves_the_job(held: Server, until: Until) -> None:
    async with inside(KITTY, held, "jobs", "watch", JOB) as command:
        await until(lambda: command.drawn)
        command.process.send_signal(signal.SIGTERM)
        code, screen = await command.ended()
    assert code == 130
    assert not held.of(f"/api/v1/jobs/{JOB}/cancel")
    assert not screen.pictures
    assert len(screen.text) == 1
