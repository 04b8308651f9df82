"""The quick start and the guide to the main flows, from their first line to their last.

One service runs for both, as the quick start starts it; the guide goes on in the folder that it left.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.pages import ROOT, Place, blocks, command, needs_curl
from tests.support.processes import Process, client, simulator, until_online

QUICKSTART, GUIDE = "docs/QUICKSTART.md", "docs/API_GUIDE.md"
COMFYUI = "http://127.0.0.1:8188"
FAST = ("--seconds-per-step", "0.01", "--seconds-per-load", "0")
LANGUAGES = ("sh", "python", "js")
pytestmark = needs_curl


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where the quick start has come to its second half: a service with authentication, and its first key."""
    folder = tmp_path_factory.mktemp("repository")
    doctor, admin, serve = blocks(QUICKSTART, "sh", section="On your ComfyUI")
    with simulator(folder, *FAST) as comfyui:
        place = Place(COMFYUI, folder)
        place.lay_examples()
        making, checking = doctor.splitlines()
        assert making == "make install"
        anywhere = replace(place, environment={"PORT": "0"})  # it looks whether its port is free
        found = anywhere.run("sh", "-eu", given=place.as_here(checking).replace(COMFYUI, comfyui.url))
        assert "✗" not in found
        place.shell([admin])
        arguments = [word.replace(COMFYUI, comfyui.url) for word in command(serve)]
        process = Process(["comfy_api_service", *arguments, "--port", "0"], folder=folder)
        try:
            process.wait_listening()
            with client(process) as http:
                assert http.get("/api/v1/jobs").status_code == 401
                until_online(http)
            yield replace(place, url=process.url)
            assert process.terminate() == 0, "\n".join(process.output)
        finally:
            process.close()


def test_the_quick_start_begins_with_a_demo(tmp_path: Path) -> None:
    begin, requests = blocks(QUICKSTART, "sh", section="A picture, with nothing installed")
    assert begin == "make demo\n"
    [recipe] = re.findall(
        r"^demo: .*\n\t@exec \$\(BIN\)/comfy-api (.*) \$\(ARGS\)$", makefile(), re.MULTILINE
    )
    process = Process(["comfy_api_service", *recipe.split(), "--port", "0"], folder=tmp_path)
    try:
        process.wait_listening()
        with client(process) as http:
            until_online(http)
        place = Place(process.url, tmp_path)
        [shown] = place.shell([requests])
        assert shown.document()["status"] == "healthy"
        assert place.picture("fox.png").size == (512, 512)
    finally:
        process.close()


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def keyed(place: Place) -> Place:
    """The folder with `shop.key`, as the quick start leaves it."""
    requests, shell = blocks(QUICKSTART, "sh", section="A key for a program")
    made, saved = place.shell([requests, shell])
    assert made.document()["status"] == "completed"
    path, *jobs = saved.rest.splitlines()
    assert path == str(place.folder / "lighthouse.png")
    assert len(jobs) == 2
    assert (place.folder / "shop.key").stat().st_mode & 0o077 == 0
    key = (place.folder / "shop.key").read_text(encoding="utf-8").strip()
    return replace(place, environment={"COMFY_API_URL": place.url, "COMFY_API_KEY": key})


def test_the_guide_has_each_flow_in_three_languages() -> None:
    flows = re.findall(r"^## (.*)$", (ROOT / GUIDE).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(flows) > 10
    for flow in flows:
        assert [len(blocks(GUIDE, language, section=flow)) for language in LANGUAGES] == [1, 1, 1], flow


def test_the_flows_in_curl(keyed: Place) -> None:
    printed = keyed.shell(blocks(GUIDE, "sh"))
    me, _, twice, followed, ticketed, summer, workflow, batch, ends, refused, used = (
        printed[0],
        *printed[1:],
    )
    assert me.document()["name"] == "shop"
    assert twice.rest == json.loads((keyed.folder / "accepted.json").read_text(encoding="utf-8"))["job_id"]
    assert followed.events()[-1]["status"] == ticketed.events()[-1]["status"] == "succeeded"
    assert summer.document()["status"] == "completed"
    assert "prompt" in workflow.document()["properties"]
    assert workflow.document()["status"] == "queued"
    told = batch.document()
    assert (told["completed"], told["failed"]) == (1, 1)
    assert ends.document()["jobs"][0]["job_id"] == twice.rest
    assert len(ends.rest.split()) == 2
    faults = refused.document()["error"]["details"]["errors"]
    assert [fault["field"] for fault in faults] == ["prompt", "width"]
    assert used.document()["tier"] == "enterprise"
    assert keyed.picture("fox.png").size == (512, 512)
    assert keyed.picture("harbour.png").size == (768, 512)


def test_the_flows_in_python(keyed: Place) -> None:
    """The guide imports httpx, as its readers have it; here its successor with the same interface stands in."""
    (keyed.folder / "httpx.py").write_text("from httpx2 import *\n")
    printed = keyed.run(sys.executable, "-", given="\n".join(blocks(GUIDE, "python"))).splitlines()
    assert [line for line in printed if not re.fullmatch(r"\d+ %|\d+ jobs|a preview of \d+ bytes", line)] == [
        "shop",
        "completed 7",
        "succeeded",
        "succeeded",
        "completed",
        "3 of 3",
        "canceled",
        "VALIDATION_ERROR ['width']",
        "MODEL_NOT_FOUND ['flux1-schnell.safetensors']",
        printed[-1],
    ]
    assert re.fullmatch(r"enterprise \d+ pictures today", printed[-1])
    assert keyed.picture("harbour_0.png").size == (768, 512)
    assert keyed.picture("poster_0.png").size == (1024, 1024)


@pytest.mark.skipif(shutil.which("node") is None, reason="the examples in JavaScript are run by Node")
def test_the_flows_in_javascript(keyed: Place) -> None:
    (keyed.folder / "flows.mjs").write_text("\n".join(blocks(GUIDE, "js")), encoding="utf-8")
    printed = keyed.run("node", *websocket_flag(), "flows.mjs").splitlines()
    assert [
        line for line in printed if not re.fullmatch(r"\d+ %|\d+ jobs|progress|preview|artifact", line)
    ] == [
        "shop",
        "completed 7",
        "succeeded",
        *(line for line in printed if line in ("snapshot", "queued", "running", "done")),
        "succeeded",
        "completed",
        "2 of 2",
        "canceled",
        "VALIDATION_ERROR [ 'width' ]",
        printed[-1],
    ]
    assert re.fullmatch(r"enterprise \d+ pictures today", printed[-1])
    assert keyed.picture("harbour_js_0.png").size == (768, 512)
    assert keyed.picture("poster_js_0.png").size == (1024, 1024)


def websocket_flag() -> list[str]:
    """Node 20 and 21 have WebSocket behind a flag, which later ones do not need."""
    told = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return ["--experimental-websocket"] if int(told[1:].partition(".")[0]) < 22 else []
