"""The supervisor with real processes: a `main.py` that notes its life, and is killed."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from comfy_api_service.cli import supervisor
from comfy_api_service.cli.supervisor import Supervisor, local_comfyui, supervised

Until = Callable[..., Awaitable[None]]

MAIN = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("lives.part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
pathlib.Path("lives").open("a").write(pathlib.Path("lives.part").read_text())
print("ready with", *sys.argv[1:])
time.sleep(600)
"""
DYING = 2.0
"""Seconds: the kernel buries a killed process a moment after the signal."""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('not yet', flush=True))\n" + MAIN


class Lives:
    """What `main.py` wrote: a line for each life, its process and one that it started."""

    def __init__(self, folder: Path, main: str) -> None:
        self.folder = folder
        (folder / "main.py").write_text(textwrap.dedent(main))

    @property
    def all(self) -> list[tuple[int, int]]:
        path = self.folder / "lives"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(first), int(second)) for first, second in (line.split() for line in lines)]

    def gone(self, life: int = -1) -> bool:
        return not any(alive(pid) for pid in self.all[life])


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path, MAIN)


async def test_it_is_started_and_stopped_with_all_that_it_started(lives: Lives, until: Until) -> None:
    said: list[str] = []
    async with supervised(local_comfyui(lives.folder, port=8199, arguments="--cpu"), write=said.append):
        await until(lambda: said)
        assert not lives.gone()
    await until(lives.gone, DYING)
    assert said[0] == "comfyui | ready with --cpu --listen 127.0.0.1 --port 8199"


async def test_killed_it_is_started_again(lives: Lives, until: Until) -> None:
    said: list[str] = []
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with supervised(local_comfyui(lives.folder, port=1), write=said.append, sleep=sleep):
        for life in (1, 2, 3):
            await until(lambda life=life: len(lives.all) == life)
            os.kill(lives.all[-1][0], signal.SIGKILL)
        await until(lambda: len(lives.all) == 4)
        await until(lambda: lives.gone(0), DYING)
    assert pauses == [1, 2, 4]
    assert "comfyui | ended (killed by SIGKILL); starting again in 1 s" in said


async def test_one_that_cannot_start_is_told_and_tried_again(lives: Lives) -> None:
    said: list[str] = []
    tries = asyncio.Event()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            tries.set()
            await asyncio.Event().wait()

    async with supervised(
        local_comfyui(lives.folder, port=1, python="/no/such/python"), write=said.append, sleep=sleep
    ):
        await asyncio.wait_for(tries.wait(), 20)
    assert "comfyui | cannot start /no/such/python: No such file or directory" in said


async def test_one_that_ignores_the_stop_signal_is_killed(tmp_path: Path, until: Until) -> None:
    lives = Lives(tmp_path, STUBBORN)
    said: list[str] = []
    async with supervised(local_comfyui(tmp_path, port=1), write=said.append, grace=0.3):
        await until(lambda: said)
    await until(lives.gone, DYING)
    assert "comfyui | not yet" in said


async def test_it_dies_with_a_service_that_is_killed(lives: Lives, until: Until) -> None:
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVICE, str(lives.folder))
    await until(lambda: lives.all)
    service.kill()
    await service.wait()
    await until(lives.gone)


async def test_it_dies_with_its_keeper_and_is_started_again(lives: Lives, until: Until) -> None:
    async with supervised(local_comfyui(lives.folder, port=1), write=lambda _: None, sleep=_at_once):
        await until(lambda: lives.all)
        keeper = psutil.Process(lives.all[0][0]).parent()
        assert keeper is not None
        keeper.kill()
        await until(lambda: len(lives.all) == 2)
        await until(lambda: lives.gone(0), DYING)


async def test_a_folder_that_is_gone_is_told(lives: Lives, until: Until) -> None:
    comfyui = local_comfyui(lives.folder, port=1)
    (lives.folder / "main.py").unlink()
    lives.folder.rmdir()
    said: list[str] = []
    async with supervised(comfyui, write=said.append, sleep=_at_once):
        await until(lambda: len(said) > 2)
    assert said[0] == "comfyui | cannot start: No such file or directory"


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


SERVICE = f"""
import asyncio, pathlib, sys
from {supervisor.__name__} import {Supervisor.__name__}, local_comfyui
asyncio.run({Supervisor.__name__}(local_comfyui(pathlib.Path(sys.argv[1]), port=1)).run())
"""
