"""Backup, loss of the machine, restore: by the commands of docs/BACKUP.md alone, as they stand."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from tests.e2e.test_survival import until_status
from tests.support.checker import check
from tests.support.pages import Place, blocks
from tests.support.processes import client, serve, simulator, until_online

PAGE = "docs/BACKUP.md"
BODY = {"prompt": "a lighthouse", "width": 64, "height": 64}
SETTINGS = "AUTH_ENABLED=true\nNODE_POLICY=core\n"
FAST = ("--seconds-per-step", "0.005", "--seconds-per-load", "0")
SLOW = ("--seconds-per-step", "0.15", "--seconds-per-load", "0")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old-machine"
    folder.mkdir()
    (folder / ".env").write_text(SETTINGS)
    return folder


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "comfy_api_service", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout.strip() if code == 0 else ended.stderr


def submit(http: httpx2.Client, *, steps: int) -> str:
    answer = http.post("/api/v1/jobs", json={**BODY, "steps": steps})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def pictures(http: httpx2.Client, jobs: list[str]) -> dict[str, str]:
    """What callers get, by job; as the job says it is."""
    found = {}
    for job in jobs:
        answer = http.get(f"/api/v1/jobs/{job}/image")
        told = http.get(f"/api/v1/jobs/{job}").json()["result"]["artifacts"][0]["sha256"]
        found[job] = hashlib.sha256(answer.content).hexdigest()
        assert found[job] == told
    return found


def test_the_loss_of_the_machine(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "new-machine"
    key = run(
        old,
        "admin",
        "create",
        "--email",
        "ada@example.com",
        "--username",
        "ada",
        "--password",
        "correct horse 9",
    )
    with simulator(old, *SLOW) as comfyui, serve(old, comfyui.url) as service, client(service) as http:
        http.headers["X-API-Key"] = key
        until_online(http)
        done = [submit(http, steps=1) for _ in range(2)]
        for job in done:
            until_status(http, job, "succeeded")
        before = pictures(http, done)
        waiting = [submit(http, steps=150) for _ in range(3)]
        until_status(http, waiting[0], "running")
        place = Place(service.url, old)
        made, checked = place.shell(blocks(PAGE, "sh", section="One machine: back up"))
        assert made.rest.startswith("backups/comfy-api-")
        assert "5 jobs (3 open)" in checked.rest
        later = submit(http, steps=1)
        service.kill()
        comfyui.kill()
    new.mkdir()
    shutil.copytree(old / "backups", new / "backups")
    shutil.rmtree(old)

    Place("http://127.0.0.1:9", new).shell(blocks(PAGE, "sh", section="One machine: restore"))
    assert (new / ".env").read_text() == SETTINGS
    with simulator(new, *FAST) as comfyui, serve(new, comfyui.url) as service, client(service) as http:
        http.headers["X-API-Key"] = key
        assert pictures(http, done) == before
        for job in waiting:
            assert until_status(http, job, "succeeded", "failed")["status"] == "succeeded"
        assert http.get(f"/api/v1/jobs/{later}").status_code == 404
        login = {"username": "ada", "password": "correct horse 9"}
        assert http.post("/api/v1/auth/login", json=login).status_code == 200
        assert service.terminate() == 0
    check(new / "data", [*done, *waiting])
