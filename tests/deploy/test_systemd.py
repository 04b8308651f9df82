"""The systemd units: known to systemd, confined, and in step with commands and settings."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector
from tests.support.commands import check_command, known_settings
from tests.support.image import ROOT
from tests.support.monitoring import MONITORING

from comfy_api_service.settings import load as load_settings

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
PROGRAM = "/opt/comfy-api-service/.venv/bin/comfy-api"
MOST_EXPOSED = 20
"""Of 100, by `systemd-analyze security`; a unit without any of this has 96."""
each_service = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze on PATH"
)


def read(unit: Path) -> dict[str, list[str]]:
    """Every value of each word of the unit, whatever its section."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[;":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def environment(unit: Path) -> dict[str, str]:
    words = shlex.split(" ".join(read(unit).get("Environment", [])))
    return dict(word.replace("%i", "1").split("=", 1) for word in words)


def test_they_are_all_there() -> None:
    roles = {"comfy-api", "comfy-api-api", "comfy-api-backup", "comfy-api-worker@"}
    assert {unit.stem for unit in SERVICES} == roles
    assert (UNITS / "comfy-api-backup.timer").exists()


@needs_systemd
def test_systemd_knows_every_word(tmp_path: Path) -> None:
    """In copies that begin a program which is there."""
    for unit in [*SERVICES, *UNITS.glob("*.timer")]:
        name = unit.name.replace("@.", "@1.")
        (tmp_path / name).write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true"))
    for unit in tmp_path.iterdir():
        said = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        assert "Unknown" not in said.stderr, unit.name
    broken = tmp_path / "comfy-api.service"
    broken.write_text(broken.read_text().replace("ProtectSystem=", "ProtectSytem="))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", broken.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ProtectSytem" in said.stderr


@needs_systemd
@each_service
def test_it_is_hardly_exposed(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@1.")
    shutil.copyfile(unit, copy)
    told = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSED}",
            "--no-pager",
            copy.name,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-300:] + told.stderr


@each_service
def test_it_runs_a_command_with_settings_of_the_service(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [program, *words] = shlex.split(read(unit)["ExecStart"][0])
    assert program == PROGRAM
    check_command(words)
    told = environment(unit)
    assert told.keys() <= known_settings()
    assert read(unit)["User"] == ["comfy-api"]
    monkeypatch.chdir(tmp_path)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    # what it may write to is made by systemd, and no other
    states = [f"/var/lib/{name}" for name in read(unit)["StateDirectory"][0].split()]
    assert str(settings.data_dir).startswith(states[0])
    assert read(unit)["ProtectSystem"] == ["strict"]
    if words[0] == "backup":
        assert words[1] in states
        return
    assert int(read(unit)["TimeoutStopSec"][0]) >= settings.shutdown_grace + 15
    assert read(unit)["Restart"] == ["always"]
    assert int(read(unit)["LimitNOFILE"][0]) >= 65_536


def test_none_hides_what_figures_and_comfyui_read_of_the_machine(tmp_path: Path) -> None:
    """Of a /proc with processes alone (`ProcSubset=pid`) there are no figures of the process at all."""
    (tmp_path / "self").symlink_to(f"/proc/{os.getpid()}")

    def figures() -> set[str]:
        return {one.name for one in ProcessCollector(proc=str(tmp_path), registry=None).collect()}

    assert "process_start_time_seconds" not in figures()
    (tmp_path / "stat").symlink_to("/proc/stat")
    assert {"process_start_time_seconds", "process_open_fds", "process_cpu_seconds"} <= figures()
    for unit in [*SERVICES, *UNITS.glob("*.conf")]:
        assert read(unit).get("ProcSubset", ["all"]) == ["all"], unit.name


def test_a_supervised_comfyui_is_not_stopped_with_the_service_but_by_it() -> None:
    for name in ("comfy-api.service", "comfy-api-worker@.service"):
        assert read(UNITS / name)["KillMode"] == ["mixed"]


def test_each_process_has_a_port_of_its_own_for_its_figures() -> None:
    api = UNITS / "comfy-api-api.service"
    [_, _, option, number] = shlex.split(read(api)["ExecStart"][0])
    assert option == "--workers"
    first = int(environment(api)["METRICS_PORT"])
    ports = set(range(first, first + int(number)))
    template = re.search(r"METRICS_PORT=(\w*)%i", read(UNITS / "comfy-api-worker@.service")["Environment"][0])
    assert template is not None
    assert not ports & {int(f"{template[1]}{instance}") for instance in range(1, 10)}
    targets = (MONITORING / "targets" / "api.yml").read_text(encoding="utf-8")
    assert {int(port) for port in re.findall(r'"127\.0\.0\.1:(92\d\d)"', targets)} == ports


def test_the_timer_is_of_the_backup() -> None:
    timer = read(UNITS / "comfy-api-backup.timer")
    assert timer["Persistent"] == ["true"]
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", timer["OnCalendar"][0])
