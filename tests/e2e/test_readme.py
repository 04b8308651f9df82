"""The examples of README.md and of docs/API.md, GENERATION.md, WEBHOOKS.md and WORKFLOWS.md, run as they stand."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from tests.support.page_receivers import PAGE as WEBHOOKS
from tests.support.page_receivers import PORT, PageReceiver, page_receiver, signed
from tests.support.pages import LIMIT, Output, Place, blocks, command, needs_curl
from tests.support.processes import Process, client, serve, simulator, until_health
from tests.support.valkey import free_port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service beside the simulator, as `make demo` starts it."""
    folder = tmp_path_factory.mktemp("service")
    with simulator(folder) as comfyui, serve(folder, comfyui.url, WEBHOOK_ALLOW_PRIVATE="true") as service:
        with client(service) as http:
            until_known(http)
        yield service.url


def until_known(http: httpx2.Client) -> None:
    end = time.monotonic() + LIMIT
    while not http.get("/models").json()["models"]:
        assert time.monotonic() < end, "the backend did not become known"
        time.sleep(0.05)


@pytest.fixture
def place(url: str, tmp_path: Path) -> Place:
    return Place(url, tmp_path)


@needs_curl
def test_the_readme(place: Place) -> None:
    requests, commands = blocks("README.md", "sh", section="Use it")

    [shown] = place.shell([requests])
    made = shown.document()
    assert made["status"] == "completed"
    assert made["metadata"]["seed"] == 7
    told = shown.events()
    assert told[0]["type"] == "snapshot"
    assert told[-1]["status"] == "succeeded"
    job = shown.document()
    assert job["status"] == "succeeded"
    assert job["labels"] == {"order": "1041"}
    assert shown.document()["models"][0]["kind"] == "checkpoints"
    assert shown.document()["status"] == "healthy"
    assert not shown.rest
    harbour, small = place.picture("harbour.png"), place.picture("small.webp")
    assert (harbour.format, harbour.size) == ("PNG", (768, 512))
    assert (small.format, max(small.size)) == ("WEBP", 256)

    [listed] = place.shell([commands])
    saved, *jobs = listed.rest.splitlines()
    assert saved == str(place.folder / "snow.png")
    assert place.picture("snow.png").format == "PNG"
    assert any(line.startswith(f"{job['job_id']}\tsucceeded\t") for line in jobs)


@needs_curl
def test_any_workflow_of_the_readme(place: Place) -> None:
    place.lay_examples()
    [shown] = place.shell(blocks("README.md", "sh", section="Any workflow"))
    names = ("poster.png", "poster-winter.png")
    assert [place.picture(name).size for name in names] == [(1024, 1024)] * 2
    paths, _, accepted = shown.rest.partition("{")
    assert paths.split() == [str(place.folder / name) for name in names]
    assert json.loads("{" + accepted)["status"] == "queued"


@needs_curl
def test_the_guide_to_workflows(url: str, tmp_path: Path) -> None:
    """In five minutes, as it says; what it shows is what is printed."""
    terminal = {"FORCE_COLOR": "1", "TERM": "dumb"}
    place = Place(url, tmp_path, terminal)
    place.lay_examples()
    section = "In five minutes"
    stored, ran, executed, generated, unstored = place.shell(
        blocks("docs/WORKFLOWS.md", "sh", section=section)
    )
    told, _ = blocks("docs/WORKFLOWS.md", "text", section=section)
    assert [line.rstrip() for line in stored.rest.splitlines()][1:] == told.splitlines()[1:]

    assert ran.rest.splitlines() == [str(tmp_path / name) for name in ("quay.png", "quay-winter.png")]
    assert executed.events()[-1]["status"] == "succeeded"
    assert place.picture("quay.png").size == place.picture("night.png").size == (1024, 1024)
    made = generated.document()
    assert made["metadata"]["inputs"]["prompt"] == "a fox in the snow"
    assert [(one["width"], one["height"]) for one in made["images"]] == [(768, 768)]
    assert unstored.document()["status"] == "completed"


def test_pictures_from_pictures_as_the_page_about_generation_says(place: Place) -> None:
    for name in ("photo.jpg", "portrait.png", "hair.png"):
        Image.new("RGB", (96, 64), "teal").save(place.folder / name)
    [made] = place.shell(blocks("docs/GENERATION.md", "sh"))
    names = ("photo-winter.png", "portrait-hat.png")
    assert made.rest.splitlines() == [str(place.folder / name) for name in names]
    assert place.picture(names[0]).size == (512, 512)


def test_the_example_is_the_same_workflow_in_both_forms(place: Place) -> None:
    place.lay_examples()
    told = [
        json.loads(
            place.run(sys.executable, "-m", "comfy_api_service", "workflows", "inspect", name, "--json")
        )
        for name in ("docs/examples/poster.api.json", "docs/examples/poster.page.json")
    ]
    for one in told:
        assert one["problems"] == []
        one["parameters"].sort(key=lambda parameter: str(parameter["name"]))
        for node in one["workflow"].values():
            node.pop("_meta", None)
    assert told[0] == told[1]


@needs_curl
def test_others_are_let_in_as_the_readme_says(tmp_path: Path) -> None:
    first, serving, rest = blocks("README.md", "sh", section="Let others in")
    with simulator(tmp_path) as comfyui:
        place = Place(comfyui.url, tmp_path)
        place.shell([first])
        arguments = [word.replace("http://127.0.0.1:8188", comfyui.url) for word in command(serving)]
        process = Process(["comfy_api_service", *arguments, "--port", "0"], folder=tmp_path)
        try:
            process.wait_listening()
            with client(process) as http:
                assert http.get("/api/v1/jobs").status_code == 401
                until_health(http, comfyui_status="connected")
            [shown] = replace(place, url=process.url).shell([rest])
        finally:
            process.close()
        assert shown.document()["status"] == "completed"
        usage = shown.document()
        assert (usage["tier"], usage["left"]["images_today"]) == ("pro", 999)
        assert usage["days"][0]["images"] == 1
        assert not shown.rest


@needs_curl
def test_the_requests_of_the_guide(place: Place) -> None:
    found = blocks("docs/API.md", "sh")
    printed = dict(zip(found, place.shell(found), strict=True))

    def of(words: str) -> Output:
        [shown] = [shown for block, shown in printed.items() if words in block]
        return shown

    assert of("$API/health").document()["status"] == "healthy"
    assert of("a fox in the snow").document()["status"] == "completed"
    submitted = of('"priority": 5').document()
    assert (submitted["priority"], submitted["labels"]) == (5, {"order": "1041"})
    assert submitted["deadline_at"] is not None
    batch = of("generate/batch").document()
    assert (batch["total"], batch["completed"], batch["failed"]) == (2, 1, 1)
    assert batch["jobs"][1]["error"]["code"] == "VALIDATION_ERROR"
    twice = of("order-1041-")
    first, second = twice.document(), twice.document()
    assert first["job_id"] == second["job_id"]
    lists = of("jobs?status=running")
    assert lists.document()["jobs"]
    assert submitted["job_id"] in {job["job_id"] for job in lists.document()["jobs"]}
    assert of("jobs/$JOB/events").events()[-1]["status"] == "succeeded"
    ends = of("/cancel")
    canceled, again, purged = ends.document(), ends.document(), ends.document()
    assert canceled["status"] == "canceled" or canceled["canceling"]
    assert again["status"] == "queued"
    assert (purged["job_id"], purged["purged_at"] is None) == (submitted["job_id"], False)
    from_picture = of("the same in winter")
    assert (from_picture.document()["width"], from_picture.document()["status"]) == (768, "completed")
    workflows = of("colour.json")
    inspected, schema, accepted, made, graph_job, listed = (workflows.document() for _ in range(6))
    assert (inspected["problems"], inspected["parameters"][0]["name"]) == ([], "colour")
    assert schema["properties"]["colour"]["maximum"] == 0xFFFFFF
    assert accepted["status"] == graph_job["status"] == "queued"
    assert made["metadata"]["inputs"]["colour"] == 0xFF0000
    assert listed["workflows"][0]["name"] == "One colour"
    assert of("/models?kind").document()["models"]
    assert not any(shown.rest for shown in printed.values())

    for name, kind in (("harbour.jpg", "JPEG"), ("same.jpg", "JPEG"), ("harbour.webp", "WEBP")):
        picture = place.picture(name)
        assert (picture.format, picture.size) == (kind, (768, 512))
    assert max(place.picture("small.webp").size) == 256
    whole = (place.folder / "harbour.jpg").read_bytes()
    assert (place.folder / "start.bin").read_bytes() == whole[:100]


NODE = pytest.mark.skipif(shutil.which("node") is None, reason="the examples in JavaScript are run by Node")


@needs_curl
@pytest.mark.parametrize("language", ["python", pytest.param("js", marks=NODE)])
def test_the_page_about_webhooks_and_its_receivers(place: Place, language: str) -> None:
    until_nothing_is_under_way(place.url)
    port = free_port()
    found = blocks(WEBHOOKS, "sh")
    demo, register, own, submit, log = (block.replace(PORT, str(port)) for block in found)
    assert demo == "WEBHOOK_ALLOW_PRIVATE=true make demo\n"
    registered, account = (shown.document() for shown in place.shell([register, own]))
    secrets = registered["secret"], account["secret"]
    webhook = {"WEBHOOK": registered["webhook_id"]}
    with page_receiver(place, language, port, *secrets) as receiver:
        job_id = place.shell([submit])[0].document()["job_id"]
        told = [line.rpartition(" ")[0] for line in receiver.until(4)]
        assert sorted(told) == [
            f"{event} {job_id}" for event in ("job.running", "job.succeeded") for _ in "ab"
        ]
        check_the_log(replace(place, environment=webhook), log, receiver)
        check_what_is_refused(receiver, secrets)
    other = secrets[0][:10] + "AAAA" + secrets[0][14:]
    with page_receiver(place, language, port, other) as receiver:
        there, (test, *_, newest, _, _) = replace(place, environment=webhook), log.splitlines()
        there.shell([test])
        [delivery, *_] = until_tried(there, newest, 1)
        assert (delivery["type"], delivery["last_status"]) == ("webhook.test", 401)
        assert receiver.lines() == []
    httpx2.delete(f"{place.url}/api/v1/webhooks/{webhook['WEBHOOK']}", trust_env=False).raise_for_status()


def until_nothing_is_under_way(url: str) -> None:
    """A webhook hears of all jobs, those of tests before this one among them."""
    end = time.monotonic() + LIMIT
    path = f"{url}/api/v1/jobs?status=queued&status=running&limit=1"
    while (found := httpx2.get(path, trust_env=False).json()["jobs"]) != []:
        assert time.monotonic() < end, found
        time.sleep(0.2)


def check_the_log(place: Place, log: str, receiver: PageReceiver) -> None:
    """Its commands; what came last before them comes again."""
    newest = until_tried(place, log.splitlines()[2], 4)
    assert [one["last_status"] for one in newest[:4]] == [204] * 4
    delivery = {"DELIVERY": newest[0]["delivery_id"]}
    [shown] = replace(place, environment={**place.environment, **delivery}).shell([log])
    tested, failed, listed, again, enabled = (shown.document() for _ in range(5))
    assert (tested["type"], again["delivery_id"]) == ("webhook.test", delivery["DELIVERY"])
    assert failed["deliveries"] == []
    assert len(listed["deliveries"]) == 5
    assert enabled["enabled"] is True
    lines = receiver.until(6)[4:]
    assert sorted(line.partition(" ")[0] for line in lines) == sorted(("webhook.test", newest[0]["type"]))


def check_what_is_refused(receiver: PageReceiver, secrets: tuple[str, ...]) -> None:
    body = json.dumps({"type": "job.succeeded", "data": {"job_id": "job_1", "seq": 4}}).encode()
    printed = len(receiver.lines())
    for secret in secrets:
        headers = signed(secret, body)
        assert receiver.answer(body.replace(b"4", b"5"), headers) == 401
        assert receiver.answer(body, {**headers, "webhook-id": "msg_2"}) == 401
        assert receiver.answer(body, signed(secret, body, age=310)) == 401
        assert receiver.answer(body, signed(secret, body, age=-310)) == 401
        assert receiver.answer(body, signed(secret[:-8] + "AAAAAAA=", body)) == 401
        for missing in headers:
            left = {name: value for name, value in headers.items() if name != missing}
            assert receiver.answer(body, left) == 401
            assert receiver.answer(body, {**left, missing: "\u00e9 v1,"}) == 401
        receiver.half()
        assert len(receiver.lines()) == printed
        assert receiver.answer(body, headers) == 204
        printed += 1
        assert receiver.until(printed)[-1] == "job.succeeded job_1 4"


def until_tried(place: Place, listed: str, count: int) -> list[dict[str, Any]]:
    """The newest deliveries, once so many of them were tried."""
    end = time.monotonic() + LIMIT
    while True:
        found: list[dict[str, Any]] = place.shell([listed])[0].document()["deliveries"]
        if all(one["attempts"] for one in found[:count]):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)
