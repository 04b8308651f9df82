"""`serve`, `demo` and `simulate` as processes: how they start, speak, stop, and what they refuse."""

import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

Start = Callable[..., Any]
Until = Callable[..., Any]


@pytest.fixture
def simulator(start: Start) -> Iterator[str]:
    """A simulated ComfyUI that takes its time."""
    command = start("simulate", "--port", "0", "--load-seconds", "0", "--step-seconds", "0.1")
    yield command.said(r"at (http://\S+)")[1]
    assert command.stop() == 0


@pytest.fixture
def service(start: Start, simulator: str) -> Any:
    command = start("serve", "--port", "0", "--comfyui-url", simulator)
    assert command.url
    return command


def ready(http: httpx2.Client, url: str) -> bool:
    """The backend is known, with what it has."""
    return bool(http.get(f"{url}/models", params={"kind": "checkpoints"}).json()["models"])


def test_it_says_where_it_is_and_answers(service: Any, simulator: str, http: httpx2.Client) -> None:
    assert f"documentation  {service.url}/docs" in service.out
    assert simulator in service.out
    answer = http.get(f"{service.url}/")
    assert answer.json()["name"] == "comfy-api-service"
    assert "server" not in answer.headers
    assert http.get(f"{service.url}/docs").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_it_well(service: Any, number: int) -> None:
    service.send(number)
    assert service.ended() == 0
    assert "stopping" in service.err
    assert "Traceback" not in service.err


def test_a_running_job_is_finished_first(
    service: Any, http: httpx2.Client, start: Start, simulator: str, until: Until
) -> None:
    until(lambda: ready(http, service.url))
    job = http.post(f"{service.url}/api/v1/jobs", json={"prompt": "a", "steps": 20}).json()["job_id"]
    address = f"{service.url}/api/v1/jobs/{job}"
    until(lambda: http.get(address).json()["status"] == "running")
    assert service.stop() == 0
    again = start("serve", "--port", "0", "--comfyui-url", simulator)
    found = http.get(f"{again.url}/api/v1/jobs/{job}").json()
    assert (found["status"], found["attempts"]) == ("succeeded", 1)
    assert again.stop() == 0


def test_a_second_signal_ends_it_at_once(service: Any, http: httpx2.Client, until: Until) -> None:
    until(lambda: ready(http, service.url))
    job = http.post(f"{service.url}/api/v1/jobs", json={"prompt": "a", "steps": 150}).json()["job_id"]
    until(lambda: http.get(f"{service.url}/api/v1/jobs/{job}").json()["status"] == "running")
    service.send(signal.SIGINT)
    service.said("stopping")
    service.send(signal.SIGINT)
    assert service.ended(5) == 130


def test_a_busy_port(start: Start, service: Any) -> None:
    port = service.url.rpartition(":")[2]
    other = start("serve", "--port", port, "--data-dir", "other")
    assert other.ended() == 1
    assert f"Port {port} of 127.0.0.1 is in use" in other.err
    assert "fix:" in other.err
    assert not (other.folder / "other").exists()


@pytest.mark.usefixtures("service")
def test_one_data_folder_for_two(start: Start) -> None:
    other = start("serve", "--port", "0")
    assert other.ended() == 1
    assert "Another process" in other.err
    assert "--data-dir" in other.err
    assert "Traceback" not in other.err


def test_a_file_in_place_of_the_data_folder(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for command in (start("serve", "--port", "0"), start("migrate")):
        assert command.ended() == 1
        assert "data folder" in command.err
        assert "Traceback" not in command.err


def test_a_database_from_a_newer_version(start: Start, tmp_path: Path) -> None:
    assert start("migrate").ended() == 0
    with closing(sqlite3.connect(next(tmp_path.glob("data/*.sqlite3")))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (start("serve", "--port", "0"), start("migrate"), start("doctor")):
        assert command.ended() == 1
        assert "9999" in command.out + command.err
        assert "newer version" in command.out + command.err
        assert "Traceback" not in command.err


def test_migrate_prints_the_revision(start: Start) -> None:
    first, second = start("migrate"), None
    assert first.ended() == 0
    second = start("migrate")
    assert second.ended() == 0
    assert first.out == second.out != ""


def test_openapi_prints_what_the_service_serves(start: Start, service: Any, http: httpx2.Client) -> None:
    import json  # noqa: PLC0415

    command = start("openapi")
    assert command.ended() == 0
    assert command.out.endswith("}\n")
    assert json.loads(command.out) == http.get(f"{service.url}/openapi.json").json()


def test_logs_as_json(start: Start, simulator: str) -> None:
    command = start("serve", "--port", "0", "--comfyui-url", simulator, "--log-level", "debug")
    assert command.url
    assert command.stop() == 0
    lines = [line for line in command.err.splitlines() if line and line != "stopping …"]
    assert all(line.startswith("{") for line in lines)


def test_a_demo_makes_a_picture_and_goes_on(start: Start, http: httpx2.Client, tmp_path: Path) -> None:
    command = start("demo", "--generate", "--output", "fox.png", "--port", "0")
    command.said("Serving until Ctrl-C")
    saved = Path(command.said(r"^saved (/.*\.png)$")[1])
    assert saved == tmp_path / "fox.png"
    assert saved.read_bytes().startswith(b"\x89PNG")
    assert "simulated" in command.out
    assert http.get(f"{command.url}/health").json()["status"] == "healthy"
    assert (tmp_path / "data" / "demo").is_dir()
    command.send(signal.SIGINT)
    assert command.ended() == 0


def test_a_demo_takes_a_free_port_if_its_own_is_busy_and_asks_for_no_key(
    start: Start, http: httpx2.Client
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        command = start("demo", PORT=str(busy), AUTH_ENABLED="true")
        command.said(f"Port {busy} is in use; taking")
        command.said(f"^ *export COMFY_API_URL={command.url}$")
        command.said("asks nobody for a key")
        assert http.get(f"{command.url}/api/v1/jobs").status_code == 200
        assert not command.url.endswith(f":{busy}")
        assert command.stop() == 0
        asked = start("demo", "--port", str(busy))
        assert asked.ended() == 1


def test_simulate_speaks_as_the_version_asked_for(start: Start, http: httpx2.Client) -> None:
    command = start("simulate", "--port", "0", "--version", "0.3.64", "--checkpoint", "mine.safetensors")
    url = command.said(r"at (http://\S+)")[1]
    assert http.get(f"{url}/system_stats").json()["system"]["comfyui_version"] == "0.3.64"
    assert http.get(f"{url}/models/checkpoints").json() == ["mine.safetensors"]
    assert command.stop() == 0


def test_doctor_finds_nothing_wrong(start: Start, service: Any, simulator: str) -> None:
    port = service.url.rpartition(":")[2]
    command = start("doctor", "--port", port, "--comfyui-url", simulator)
    assert command.ended() == 0, command.out
    assert "this service answers" in command.out
    assert "✗" not in command.out
