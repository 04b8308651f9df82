"""`serve --comfyui-dir` with a ComfyUI that is the simulator under another name."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

Start = Callable[..., Any]
Until = Callable[..., Any]

MAIN = """
import os, runpy, sys
print("arguments", *sys.argv[1:])
open("pid", "w").write(str(os.getpid()))
port = sys.argv[sys.argv.index("--port") + 1]
sys.argv = ["simulator", "--port", port, "--seconds-per-load", "0"]
runpy.run_module("comfy_api_service.simulator", run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    return folder


def pid(folder: Path) -> int:
    path = folder / "pid"
    text = path.read_text() if path.exists() else ""
    return int(text) if text else 0


def gone(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def generated(http: httpx2.Client, url: str) -> bool:
    answer = http.post(f"{url}/api/v1/generate", json={"prompt": "a fox", "steps": 2})
    return answer.status_code == 201


def test_it_is_started_killed_started_again_and_stopped(
    start: Start, folder: Path, http: httpx2.Client, until: Until
) -> None:
    command = start("serve", "--port", "0", "--comfyui-dir", str(folder), "--comfyui-args", "--cpu")
    url = command.url
    command.said(r"^comfyui \| arguments --cpu --listen 127\.0\.0\.1 --port \d+$")
    until(lambda: generated(http, url))
    first = pid(folder)
    os.kill(first, signal.SIGKILL)
    command.said(r"^comfyui \| ended \(killed by SIGKILL\); starting again in 1 s$")
    until(lambda: pid(folder) not in (0, first))
    until(lambda: generated(http, url))
    assert command.stop() == 0
    until(lambda: gone(pid(folder)), 2)


def test_it_dies_with_a_service_that_is_killed(start: Start, folder: Path, until: Until) -> None:
    command = start("serve", "--port", "0", "--comfyui-dir", str(folder))
    until(lambda: pid(folder))
    command.send(signal.SIGKILL)
    command.ended()
    until(lambda: gone(pid(folder)))
