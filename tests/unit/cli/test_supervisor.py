import asyncio
import sys
from pathlib import Path

import pytest

from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.serve import with_local
from comfy_api_service.cli.supervisor import Backoff, lines, local_comfyui
from comfy_api_service.settings import Settings


def test_backoff_doubles_up_to_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(0.1) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_backoff_begins_anew_after_a_steady_life() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (1, 1, 59.9, 60, 1)] == [1, 2, 4, 1, 2]


async def test_lines_as_a_terminal_would_leave_them() -> None:
    stream = asyncio.StreamReader()
    for piece in (b"one\ntw", b"o\r\n 0%|\r 50%|", b"\r100%| done\n", b"\xff\n", b"x" * 9000, b"end"):
        stream.feed_data(piece)
    stream.feed_eof()
    found = [line async for line in lines(stream)]
    assert found[:4] == ["one", "two", "100%| done", "\ufffd"]
    assert len(found[4]) <= 8192


async def test_a_carriage_return_at_the_end_of_a_piece_loses_nothing() -> None:
    stream = asyncio.StreamReader()

    async def feed() -> None:
        for piece in (b"whole\r", b"\nnext\r", b"last\n"):
            stream.feed_data(piece)
            await asyncio.sleep(0)
        stream.feed_eof()

    feeding = asyncio.create_task(feed())
    assert [line async for line in lines(stream)] == ["whole", "last"]
    await feeding


def test_no_main_py(tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"main\.py") as told:
        local_comfyui(tmp_path, port=8188)
    assert "--comfyui-dir" in told.value.remedy


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    found = local_comfyui(tmp_path, port=8190, arguments="--cpu --output-directory 'my pictures'")
    assert found.command == (
        *(sys.executable, "main.py", "--cpu", "--output-directory", "my pictures"),
        *("--listen", "127.0.0.1", "--port", "8190"),
    )
    assert found.url == "http://127.0.0.1:8190"


def test_unbalanced_quotes(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(Fault, match="--comfyui-args"):
        local_comfyui(tmp_path, port=8188, arguments="'--cpu")


@pytest.mark.parametrize("folder", ["venv", ".venv"])
def test_its_own_interpreter_comes_first(tmp_path: Path, folder: str) -> None:
    (tmp_path / "main.py").touch()
    python = tmp_path / folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert local_comfyui(tmp_path, port=1).python == str(python)
    assert local_comfyui(tmp_path, port=1, python="/opt/python").python == "/opt/python"


def test_the_default_address_gives_way_to_the_local_server() -> None:
    default = Settings(_env_file=None)
    assert with_local(default, "http://127.0.0.1:8189").comfyui_url == ("http://127.0.0.1:8189",)
    asked = Settings(_env_file=None, comfyui_url=("http://gpu1:8188",))
    assert with_local(asked, "http://127.0.0.1:8188").comfyui_url == (
        "http://127.0.0.1:8188",
        "http://gpu1:8188",
    )
