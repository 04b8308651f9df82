"""`workflows`, and `generate` from pictures, against a real service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from tests.support.pictures import png
from tests.support.processes import client, serve, simulator, until_online

Start = Callable[..., Any]
Until = Callable[..., Any]
GRAPH: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255},
        "_meta": {"title": "$colour.color"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def server(start: Start, until: Until) -> dict[str, str]:
    """The environment of a client of a demo that knows its backend."""
    url = start("demo", "--port", "0").url
    with httpx2.Client(trust_env=False) as http:
        until(lambda: http.get(f"{url}/models").json()["models"])
    return {"COMFY_API_URL": url}


def written(folder: Path, document: object, name: str = "one colour.json") -> str:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return name


def size(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as picture:
        picture.load()
        return picture.format, picture.size


def test_a_workflow_from_its_file_to_its_pictures(
    start: Start, server: dict[str, str], tmp_path: Path
) -> None:
    added = start("workflows", "add", written(tmp_path, GRAPH), "--description", "Plain.", **server)
    assert added.ended() == 0, added.err
    workflow_id = added.out.strip()
    assert workflow_id.startswith("wfl_")
    assert "colour\tinteger\t255\t0…16777215\t1.color" in added.err
    assert "one colour, version 1" in added.err

    ran = start(*("workflows", "run", workflow_id, "--colour", "65280", "--width=128", "-n", "x=1"), **server)
    assert ran.ended() == 2, "an option that is neither the command's nor written as a parameter"
    ran = start("workflows", "run", workflow_id, "--colour", "65280", "--width=128", "-o", "a.png", **server)
    assert ran.ended() == 0, ran.err
    assert ran.out == f"{tmp_path}/a.png\n"
    assert size(tmp_path / "a.png") == ("PNG", (128, 64))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.getpixel((5, 5)) == (0, 255, 0)

    many = start("workflows", "run", workflow_id, "--batch-size", "2", "-o", "pictures/", "--json", **server)
    assert many.ended() == 0, many.err
    job = json.loads(many.out)
    assert job["params"]["inputs"]["batch_size"] == 2
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        f"{job['job_id']}_1.png",
        f"{job['job_id']}_2.png",
    ]

    green = {**GRAPH, "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "color": 65280}}}
    changed = start("workflows", "add", written(tmp_path, green), "--update", workflow_id, "--json", **server)
    assert changed.ended() == 0, changed.err
    stored = json.loads(changed.out)
    assert (stored["version"], stored["name"], stored["description"]) == (2, "one colour", "Plain.")
    first = start("workflows", "run", workflow_id, "--version", "1", "-o", "b.jpg", **server)
    assert first.ended() == 0, first.err
    assert size(tmp_path / "b.jpg") == ("JPEG", (96, 64))
    with Image.open(tmp_path / "b.jpg") as picture:
        assert picture.getpixel((5, 5)) == pytest.approx((0, 0, 255), abs=3), "of the first version"
    shown = start("workflows", "show", workflow_id, "--version", "1", **server)
    assert shown.ended() == 0
    assert "outputs        save_image (node 2)" in shown.out
    assert "colour\tinteger\t255\t" in shown.out

    listed = start("workflows", "list", **server)
    assert listed.ended() == 0
    lines = [line.split("\t") for line in listed.out.splitlines()]
    assert lines[0] == [workflow_id, "2", "yours", "one colour"]
    assert ["resizing", "1", "the service's", "Resizing"] in lines
    gone = start("workflows", "delete", workflow_id, **server)
    assert gone.ended() == 0
    assert start("workflows", "show", workflow_id, **server).ended() == 1


def test_what_show_prints_can_be_changed_and_added(
    start: Start, server: dict[str, str], tmp_path: Path
) -> None:
    shown = start("workflows", "show", "resizing", "--json", **server)
    assert shown.ended() == 0, shown.err
    document = json.loads(shown.out)
    document["name"] = "Twice as large"
    document["parameters"] = [one for one in document["parameters"] if one["name"] == "image"]
    document["parameters"][0]["name"] = "photo"
    added = start("workflows", "add", written(tmp_path, document), "--json", **server)
    assert added.ended() == 0, added.err
    stored = json.loads(added.out)
    assert (stored["name"], [one["name"] for one in stored["parameters"]]) == ("Twice as large", ["photo"])
    (tmp_path / "small.png").write_bytes(png(size=(40, 20)))
    ran = start("workflows", "run", stored["workflow_id"], "--photo", "small.png", "-o", "big.png", **server)
    assert ran.ended() == 0, ran.err
    assert "uploaded small.png: upl_" in ran.err
    assert size(tmp_path / "big.png") == ("PNG", (80, 40))


def test_a_job_is_left_to_itself(start: Start, server: dict[str, str]) -> None:
    options = ("--prompt", "-f is no option here", "--steps", "2", "--seed", "7", "--label", "of=test")
    ran = start("workflows", "run", "text-to-image-sd15", *options, "--no-wait", **server)
    assert ran.ended() == 0, ran.err
    assert start("jobs", "watch", ran.out.strip(), **server).ended() == 0
    shown = start("jobs", "show", ran.out.strip(), "--json", **server)
    assert shown.ended() == 0
    job = json.loads(shown.out)
    assert job["labels"] == {"of": "test"}
    assert job["params"]["inputs"]["prompt"] == "-f is no option here"
    listed = start("jobs", "list", **server)
    assert listed.ended() == 0
    assert listed.out.rstrip().endswith("\ttext-to-image-sd15 -f is no option here")


def test_what_gives_text_alone_is_printed(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    graph = {
        "1": {
            "class_type": "PrimitiveString",
            "inputs": {"value": "hello"},
            "_meta": {"title": "$words"},
        },
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    added = start("workflows", "add", written(tmp_path, graph), **server)
    assert added.ended() == 0, added.err
    ran = start("workflows", "run", added.out.strip(), "--words", "good morning", **server)
    assert ran.ended() == 0, ran.err
    assert ran.out == "good morning\n"


def test_a_workflow_without_jobs(start: Start, until: Until, tmp_path: Path) -> None:
    """`run` waits by `generate` where jobs are switched off."""
    url = start("demo", "--port", "0", JOBS_ENABLED="false").url
    with httpx2.Client(trust_env=False) as http:
        until(lambda: http.get(f"{url}/models").json()["models"])
    options = ("--prompt", "x", "--steps", "2", "-o", "x.png")
    ran = start("workflows", "run", "text-to-image-sd15", *options, COMFY_API_URL=url)
    assert ran.ended() == 0, ran.err
    assert size(tmp_path / "x.png") == ("PNG", (512, 512))


def test_inspecting(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    good = start("workflows", "inspect", written(tmp_path, GRAPH), **server)
    assert good.ended() == 0, good.err
    assert "nodes          1 EmptyImage, 1 SaveImage" in good.out
    bad = {**GRAPH, "3": {"class_type": "SaveImge", "inputs": {}}, "4": {**GRAPH["2"], "inputs": {}}}
    told = start("workflows", "inspect", written(tmp_path, bad, "bad.json"), **server)
    assert told.ended() == 1
    assert "Node 3 (SaveImge)" in told.err
    assert "Node 4 (SaveImage), images: " in told.err
    assert start("workflows", "list", "--json", **server).ended() == 0


def test_a_refused_graph_is_told_problem_by_problem(
    start: Start, server: dict[str, str], tmp_path: Path
) -> None:
    bad = {
        "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "width": 0, "color": "red"}},
        "2": GRAPH["2"],
        "3": {**GRAPH["2"], "inputs": {**GRAPH["2"]["inputs"], "images": ["9", 0]}},
    }
    refused = start("workflows", "add", written(tmp_path, bad), **server)
    assert refused.ended() == 1
    assert "INVALID_GRAPH" in refused.err
    for line in (
        "Node 1 (EmptyImage), width: ",
        "Node 1 (EmptyImage), color: ",
        "Node 3 (SaveImage), images: ",
    ):
        assert f"  - {line}" in refused.err
    assert refused.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("add", "absent.json"), 2, "absent.json cannot be read"),
        (("add", "folder"), 2, "folder cannot be read"),
        (("add", "no.json"), 2, "no.json is no JSON"),
        (("add", "list.json"), 2, "holds no JSON object"),
        (("inspect", "nan.json"), 2, "is no JSON"),
        (("show", "nothing"), 1, "NOT_FOUND"),
        (("show", "../models"), 1, "NOT_FOUND"),
        (("show", "resizing", "--version", "9"), 1, "NOT_FOUND"),
        (("delete", "resizing"), 1, "NOT_FOUND"),
        (("add", "graph.json", "--update", "resizing"), 1, "NOT_FOUND"),
        (("run", "nothing", "--prompt", "x"), 1, "NOT_FOUND"),
        (("run", "resizing"), 2, "--image: is required"),
        (("run", "resizing", "--image", "absent.png"), 2, "the file absent.png is not there"),
        (("run", "resizing", "--image", "folder"), 2, "the file folder is a folder"),
        (("run", "resizing", "--image", "no.json"), 1, "UNSUPPORTED_MEDIA_TYPE"),
        (("run", "resizing", "--image", f"upl_{'0' * 26}"), 1, "There is no such upload"),
        (("run", "resizing", "--image", "s.png", "--factor", "9"), 1, "inputs.factor: must be at most 8"),
        (("run", "resizing", "--image", "s.png", "--method", "worst"), 1, "inputs.method: must be one of"),
        (("run", "resizing", "--image", "s.png", "--imag", "s.png"), 2, "nearest: --image"),
        (("run", "resizing", "--image", "s.png", "-o", "s.png"), 2, "s.png is there already"),
        (("run", "--image", "s.png"), 2, "WORKFLOW"),
        (("list", "--server", "http://127.0.0.1:9"), 3, "comfy-api serve"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else None,
)
def test_bad_input(
    shared: dict[str, str], start: Start, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.png").write_bytes(png())
    for name, text in (("no.json", "no"), ("list.json", "[]"), ("nan.json", '{"1": NaN}')):
        written(tmp_path, text, name)
    written(tmp_path, GRAPH, "graph.json")
    command = start("workflows", *arguments, **shared)
    assert command.ended() == code, command.err
    assert says in " ".join(command.err.replace("│", "").split())
    assert "Traceback" not in command.err
    assert command.out == ""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service for what changes nothing."""
    folder = tmp_path_factory.mktemp("service")
    with simulator(folder) as comfyui, serve(folder, comfyui.url) as service:
        with client(service) as http:
            until_online(http)
        yield {"COMFY_API_URL": service.url}


def test_generating_from_pictures(start: Start, server: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(size=(96, 64)))
    (tmp_path / "mask.png").write_bytes(png(2, size=(96, 64)))
    small = ("--steps", "2", "--width", "64", "--height", "64")
    options = ("--image", "photo.png", "--strength", "0.4", "--mask", "mask.png", "--json", *small)
    made = start("generate", "a hat", *options, "-o", "hat.png", **server)
    assert made.ended() == 0, made.err
    params = json.loads(made.out)["params"]
    assert params["strength"] == 0.4
    assert params["image"].startswith("upl_")
    assert params["mask"] not in ("", params["image"])
    assert size(tmp_path / "hat.png") == ("PNG", (64, 64))
    again = start("generate", "a hat", "--image", params["image"], *small, "-o", "again.png", **server)
    assert again.ended() == 0, again.err
    assert "uploaded" not in again.err
    alone = start("generate", "a hat", "--strength", "0.4", **server)
    assert alone.ended() == 2
    assert "--image" in alone.err
    absent = start("generate", "a hat", "--image", "absent.png", **server)
    assert absent.ended() == 2
    assert "absent.png is not there" in absent.err
