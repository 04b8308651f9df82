"""`generate` and `jobs` against a real service."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

Start = Callable[..., Any]
Until = Callable[..., Any]


@pytest.fixture
def server(start: Start) -> dict[str, str]:
    """The environment of a client of a demo."""
    return {"COMFY_API_URL": start("demo", "--port", "0").url}


def test_a_picture_from_a_prompt(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    command = start("generate", "a fox", "--seed", "7", "--steps", "4", "-o", "new/fox.png", **server)
    assert command.ended() == 0, command.err
    assert command.out == f"{tmp_path}/new/fox.png\n"
    assert "seed 7" in command.err
    assert (tmp_path / "new" / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_every_option_is_taken(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    options = (
        *("--negative", "dog", "--width", "256", "--height", "320", "--steps", "3", "--cfg", "6.5"),
        *("--sampler", "dpm++_2m", "--scheduler", "karras", "--model", "v1-5-pruned-emaonly.safetensors"),
        *("--lora", "add_detail.safetensors:0.6", "--clip-skip", "2", "--upscale", "2", "-n", "2"),
        *("--upscale-model", "RealESRGAN_x4plus.pth", "--priority", "3", "--deadline", "60"),
        *("--label", "kind=test", "--quality", "80", "--metadata", "embed", "--seed", "1"),
    )
    command = start("generate", "a fox", *options, "-o", "fox.jpg", "--json", **server)
    assert command.ended() == 0, command.err
    job = json.loads(command.out)
    assert job["labels"] == {"kind": "test"}
    assert job["params"]["loras"] == [{"name": "add_detail.safetensors", "weight": 0.6}]
    for n in (1, 2):
        assert (tmp_path / f"fox_{n}.jpg").read_bytes().startswith(b"\xff\xd8")


def test_to_standard_output(start: Start, server: dict[str, str]) -> None:
    command = start("generate", "a fox", "--steps", "2", "-o", "-", **server)
    assert command.ended() == 0
    assert command._out.read_bytes().startswith(b"\x89PNG")


def test_a_refusal_names_code_and_nearest(start: Start, server: dict[str, str], until: Until) -> None:
    with httpx2.Client(trust_env=False) as http:
        until(lambda: http.get(f"{server['COMFY_API_URL']}/models").json()["models"])
    command = start("generate", "a fox", "--model", "v1-5-pruned.safetensors", **server)
    assert command.ended() == 1
    assert "MODEL_NOT_FOUND" in command.err
    assert "v1-5-pruned-emaonly.safetensors" in command.err
    wrong = start("generate", "a fox", "--width", "100", **server)
    assert wrong.ended() == 1
    assert "width" in wrong.err


def test_an_interrupted_generate_cancels_its_job(start: Start, server: dict[str, str], until: Until) -> None:
    command = start("generate", "a fox", "--steps", "150", **server)
    command.said("^running")
    command.send(signal.SIGINT)
    assert command.ended() == 130
    assert "Traceback" not in command.err

    def canceled() -> bool:
        listed = start("jobs", "list", "--json", **server)
        listed.ended()
        return bool(json.loads(listed.out)["jobs"][0]["status"] == "canceled")

    until(canceled)


def test_jobs(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    with httpx2.Client(base_url=server["COMFY_API_URL"], trust_env=False) as http:
        first, second = (
            http.post("/api/v1/jobs", json={"prompt": prompt, "steps": steps}).json()["job_id"]
            for prompt, steps in (("first", 4), ("second", 150))
        )
    watched = start("jobs", "watch", first, **server)
    assert watched.ended() == 0, watched.err
    assert watched.out == f"{first} succeeded\n"

    canceled = start("jobs", "cancel", second, **server)
    assert canceled.ended() == 0, canceled.err
    assert canceled.out == f"{second} canceled\n"
    assert start("jobs", "watch", second, **server).ended() == 1

    shown = start("jobs", "show", first, **server)
    assert shown.ended() == 0
    assert "first" in shown.out
    listed = start("jobs", "list", "--status", "canceled", **server)
    assert listed.ended() == 0
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == [second]

    saved = start("jobs", "save", first, **server)
    assert saved.ended() == 0
    assert saved.out == f"{tmp_path}/{first}.png\n"
    assert start("jobs", "save", second, **server).ended() == 1
    absent = start("jobs", "show", "job_00000000000000000000000000", **server)
    assert absent.ended() == 1
    assert "NOT_FOUND" in absent.err


def test_no_server(start: Start) -> None:
    command = start("jobs", "list", "--server", "http://127.0.0.1:9")
    assert command.ended() == 3
    assert "comfy-api serve" in command.err
    assert "Traceback" not in command.err


def test_a_demo_without_jobs_makes_its_picture(start: Start, tmp_path: Path) -> None:
    off = {"JOBS_ENABLED": "false"}
    demo = start("demo", "--generate", "--port", "0", "--data-dir", "data", **off)
    demo.said(r"^saved .*picture\.png")
    demo.said("Serving until Ctrl-C")
    assert (tmp_path / "data" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "/api/v1/generate" in demo.out
    assert "/api/v1/jobs" not in demo.out, "what it tells to try works"
