import errno
import json
import os
import shutil
import socket
import sqlite3
import sys
from collections import namedtuple
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.cli.doctor import accounts, backends, checks, data, machine
from comfy_api_service.cli.doctor.backends import Probe, Reach
from comfy_api_service.cli.doctor.finding import Finding, Level
from comfy_api_service.cli.doctor.shown import effective_settings
from comfy_api_service.db.migrate import HEAD, upgrade
from comfy_api_service.domain.urls import HIDDEN, without_password
from comfy_api_service.settings import Settings

Shell = Callable[..., Any]
Usage = namedtuple("Usage", ["total", "used", "free"])  # noqa: PYI024 - as shutil has it
GIGABYTE = 1_000_000_000
URL = "http://127.0.0.1:8188"


def is_fault(found: Finding | None, *words: str) -> bool:
    """A fault that says these words, with a remedy."""
    return (
        found is not None
        and found.status is Level.FAULT
        and bool(found.remedy)
        and all(word in found.message for word in words)
    )


def test_python() -> None:
    assert machine.python().status is Level.OK
    assert is_fault(machine.python((3, 10, 14)), "3.10.14")


def test_sqlite() -> None:
    assert machine.sqlite().status is Level.OK
    assert is_fault(machine.sqlite((3, 34, 1)), "3.34.1", "3.35")


@pytest.mark.parametrize(("limit", "level"), [(1024, Level.WARNING), (4096, Level.OK), (None, Level.OK)])
def test_open_files(limit: int | None, level: Level) -> None:
    assert machine.open_files(lambda: limit).status is level


def test_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert is_fault(machine.port("127.0.0.1", taken, lambda *_: False), "in use")
        assert machine.port("127.0.0.1", taken, lambda *_: True).status is Level.OK
    assert machine.port("127.0.0.1", taken, lambda *_: False).status is Level.OK
    assert is_fault(machine.port("no-such-host.invalid", 80, lambda *_: False), "no address")


def test_a_writable_data_folder(tmp_path: Path) -> None:
    assert data.data_folder(tmp_path).status is Level.OK
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = data.data_folder(tmp_path / "deep" / "data")
    assert found.status is Level.OK
    assert "first start" in found.message
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_data_folder(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    found = data.data_folder(tmp_path, refuse)
    assert is_fault(found, "cannot be written to", "Permission denied")
    assert "DATA_DIR" in found.remedy


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_who_owns_the_data_folder_is_not_what_is_wrong_with_its_disk(tmp_path: Path, number: int) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    found = data.data_folder(tmp_path, refuse)
    assert is_fault(found, "cannot be written to", os.strerror(number))
    assert "chown" not in found.remedy
    assert ("Make room" in found.remedy) is (number != errno.EROFS)
    assert "DATA_DIR" in found.remedy


@pytest.mark.parametrize("below", ["", "data"])
def test_a_file_in_place_of_the_data_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    assert is_fault(data.data_folder(tmp_path / "file" / below), "is a file")


@pytest.mark.parametrize(
    ("total", "free", "level"),
    [
        (100 * GIGABYTE, 50 * GIGABYTE, Level.OK),
        (100 * GIGABYTE, GIGABYTE - 1, Level.FAULT),
        (100 * GIGABYTE, 4 * GIGABYTE, Level.WARNING),
        (0, 0, Level.FAULT),
    ],
)
def test_the_disk(tmp_path: Path, total: int, free: int, level: Level) -> None:
    def usage(_: Path) -> Usage:
        return Usage(total, total - free, free)

    found = data.disk(tmp_path / "absent", usage)
    assert found.status is level
    assert bool(found.remedy) is (level is not Level.OK)
    if level is not Level.OK:
        assert "nearly full" in found.message


def test_no_database_yet(tmp_path: Path) -> None:
    assert data.database(tmp_path / "none.sqlite3").status is Level.OK
    assert not (tmp_path / "none.sqlite3").exists()


def made(path: Path, revision: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.execute("CREATE TABLE filler (a, b)")
        connection.executemany("INSERT INTO filler VALUES (?, ?)", [(n, "x" * 500) for n in range(400)])
        connection.execute("CREATE INDEX by_a ON filler (a)")
    return path


def test_a_sound_database(tmp_path: Path) -> None:
    found = data.database(made(tmp_path / "db.sqlite3", HEAD))
    assert found.status is Level.OK
    assert HEAD in found.message


def test_a_database_from_a_newer_version(tmp_path: Path) -> None:
    found = data.database(made(tmp_path / "db.sqlite3", "9999"))
    assert is_fault(found, "newer version", "9999", HEAD)
    assert "Update this program" in found.remedy


def test_a_damaged_database(tmp_path: Path) -> None:
    path = made(tmp_path / "db.sqlite3", HEAD)
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 12 * 4096] = b"\xff" * (9 * 4096)
    path.write_bytes(content)
    assert is_fault(data.database(path))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    path.write_bytes(b"not a database, just words " * 100)
    assert is_fault(data.database(path), "not a database")


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (Reach.REFUSED, "connection refused"),
        (Reach.OTHER, "not ComfyUI"),
        (Reach.SILENT, "no answer"),
        (Reach.UNKNOWN_HOST, "host name"),
        (Reach.BROKEN, "connection fails"),
    ],
)
def test_a_comfyui_that_cannot_be_used(reach: Reach, words: str) -> None:
    probe = Probe(URL, reach, "…")
    found = backends.reachable(probe)
    assert is_fault(found, words)
    assert URL in found.subject
    assert backends.models(probe) is None


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("0.3.39", Level.FAULT),
        ("0.2.7", Level.FAULT),
        ("v0.3.40", Level.OK),
        ("0.3.64", Level.OK),
        ("0.8.0", Level.OK),
        ("0.28.1", Level.OK),
        ("main", Level.WARNING),
        (None, Level.WARNING),
    ],
)
def test_versions(version: str | None, level: Level) -> None:
    found = backends.reachable(Probe(URL, Reach.ANSWERS, version=version))
    assert found.status is level
    if level is not Level.OK:
        assert "0.3.64" in found.message
        assert "0.8.0" in found.message


@pytest.mark.parametrize(
    ("models", "level"),
    [
        ({"checkpoints": ("a.safetensors",)}, Level.OK),
        ({"diffusion_models": ("flux1-dev.safetensors",)}, Level.WARNING),
        ({"checkpoints": ()}, Level.FAULT),
        ({}, Level.FAULT),
    ],
)
def test_checkpoints(models: dict[str, tuple[str, ...]], level: Level) -> None:
    found = backends.models(Probe(URL, Reach.ANSWERS, version="0.8.0", models=models))
    assert found is not None
    assert found.status is level
    assert level is Level.OK or "models/checkpoints" in found.remedy


def test_each_wrong_setting_is_named_with_what_it_is_for() -> None:
    found = checks.settings_faults(["PORT: too great", "REDIS_URL: this version uses no Redis"])
    assert [one.subject for one in found] == ["setting PORT", "setting REDIS_URL"]
    assert all(is_fault(one) for one in found)
    assert "Port to listen on" in found[0].remedy
    assert checks.settings_faults([])[0].status is Level.OK


async def test_accounts_that_nobody_is_asked_for(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert await accounts.unused(settings) == []
    upgrade(settings.database_path)
    assert await accounts.unused(settings) == []
    with closing(sqlite3.connect(settings.database_path)) as connection, connection:
        connection.execute(
            "INSERT INTO accounts (id, name, username, tier, role, created_at) "
            "VALUES ('acc_1', 'ada', 'ada', 'free', 'user', 1)"
        )
    (found,) = await accounts.unused(settings)
    assert found.status is Level.WARNING
    assert found.message == "authentication is off; 1 account and its keys are not used"
    assert "AUTH_ENABLED=true" in found.remedy


def test_doctor_tells_what_does_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AUTH_ENABLE=true\nPORT=none\n")
    told = shell("doctor").out
    assert ".env: unknown: AUTH_ENABLE (AUTH_ENABLED?)" in told


def test_secrets_are_hidden() -> None:
    settings = Settings(
        _env_file=None,
        secret_key="0f2c9d7b51e8a4630f2c9d7b51e8a4631",
        metrics_token="token-of-the-metrics",
        comfyui_url=("http://me:swordfish@gpu:8188",),
    )
    shown = effective_settings(settings)
    assert set(shown) == {name.upper() for name in Settings.model_fields}
    text = json.dumps(shown)
    for secret in ("sss", "token-of", "swordfish"):
        assert secret not in text
    assert shown["SECRET_KEY"] == HIDDEN
    assert without_password("redis://:pw@host/0") == f"redis://:{HIDDEN}@host/0"
    assert without_password("redis://u:p@ss@host/0") == f"redis://u:{HIDDEN}@host/0"
    url = "redis+sentinel://a,b/main?sentinel_password="
    assert without_password(f"{url}pw&db=1") == f"{url}{HIDDEN}&db=1"


def down() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_doctor_tells_what_is_wrong_and_ends_with_1(shell: Shell, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{down()}"
    ended = shell("doctor", "--comfyui-url", url, "--data-dir", str(tmp_path / "data"), "--port", "0")
    assert ended.code == 1
    assert f"✗ ComfyUI {url}: nothing listens there" in ended.out
    assert "Start ComfyUI" in ended.out
    assert "SECRET_KEY" in ended.out


def test_doctor_as_json(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_URL", f"http://127.0.0.1:{down()}")
    monkeypatch.setenv("PORT", "0")
    ended = shell("doctor", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["ok"]) == (1, False)
    assert {one["status"] for one in found["findings"]} >= {"ok", "fault"}
    assert found["settings"]["PORT"] == "0"


def test_doctor_with_wrong_settings(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "eight thousand")
    monkeypatch.setenv("SECRET_KEY", "short")
    ended = shell("doctor")
    assert ended.code == 1
    assert "✗ setting PORT" in ended.out
    assert "✗ setting SECRET_KEY" in ended.out
    assert "32 characters" in ended.out


def test_doctor_looks_at_the_local_folder(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", _plenty)
    ended = shell("doctor", "--port", "0", "--comfyui-dir", str(tmp_path))
    assert ended.code == 1
    assert "✗ local ComfyUI: There is no main.py" in ended.out
    (tmp_path / "main.py").touch()
    (tmp_path / "torch.py").touch()
    assert shell("doctor", "--port", "0", "--comfyui-dir", str(tmp_path)).code == 0


@pytest.mark.parametrize("python", [sys.executable, "/no/such/python"])
def test_doctor_finds_an_interpreter_that_cannot_start_comfyui(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", _plenty)
    (tmp_path / "main.py").touch()
    ended = shell("doctor", "--port", "0", "--comfyui-dir", str(tmp_path), "--comfyui-python", python)
    assert ended.code == 1
    assert f"✗ local ComfyUI: {python}, which would start it, does not have PyTorch" in ended.out.replace(
        "\n", " "
    )


def _plenty(_: object) -> Usage:
    return Usage(10**12, 0, 10**12)
