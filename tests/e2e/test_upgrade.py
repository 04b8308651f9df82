"""deploy/scripts/upgrade.sh on a running service. Tools of the system are stand-ins: what they would do
to units, sources and environments is done to real processes.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.support.image import ROOT
from tests.support.systemd_run import SYSTEMD_RUN

UPGRADE = ROOT / "deploy" / "scripts" / "upgrade.sh"
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$MACHINE/systemctl"
case $1 in
list-units) echo "comfy-api.service loaded active running the service" ;;
show) echo 0 ;;
is-active) kill -0 "$(cat "$MACHINE/pid")" ;;
restart | start)
    old=$(cat "$MACHINE/pid" 2>/dev/null || echo 0)
    [ "$old" = 0 ] || { kill -TERM "$old" && while kill -0 "$old" 2>/dev/null; do sleep 0.05; done; }
    set -a; . "$SETTINGS"
    "$ROOT/.venv/bin/comfy-api" serve >>"$MACHINE/log" 2>&1 </dev/null & echo $! >"$MACHINE/pid" ;;
esac
"""
GIT = """#!/bin/sh
for folder; do :; done
mkdir -p "$folder"
"""
MAKE = """#!/bin/sh
mkdir -p "$3/.venv/bin"
cp "$MACHINE/program" "$3/.venv/bin/comfy-api"
"""
REAL = """echo "$@" >>"$MACHINE/commands"
case $1 in serve | backup) exec {python} -m comfy_api_service "$@" ;; esac"""
"""What looks only, or is looked at elsewhere, is noted and not run: each start costs a second or two."""
BROKEN = """echo "$@" >>"$MACHINE/commands"
case $1 in backup) echo "$MACHINE/some.tar" ;; serve) exit 1 ;; esac"""
TOO_OLD = """echo "$@" >>"$MACHINE/commands"
[ "$1" != migrate ]"""
"""For the schema that it finds."""


@dataclass
class Machine:
    folder: Path
    environment: dict[str, str]
    url: str

    def upgrade(self, release: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", UPGRADE, release],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )

    def program(self, text: str) -> None:
        path = self.folder / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def ran(self) -> list[str]:
        """Commands of the service, in their order."""
        return (self.folder / "commands").read_text().splitlines()

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    tools, root = tmp_path / "tools", tmp_path / "comfy-api-service"
    for folder in (
        tools,
        tmp_path / "backups",
        tmp_path / "data",
        tmp_path / "comfy-api-service-v1/.venv/bin",
    ):
        folder.mkdir(parents=True)
    for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN), ("git", GIT), ("make", MAKE)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path / "settings.env"
    settings.write_text(f"COMFYUI_URL=http://127.0.0.1:9\nPORT={port}\nNO_COLOR=1\n")
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "MACHINE": str(tmp_path),
        "ROOT": str(root),
        "BACKUPS": str(tmp_path / "backups"),
        "DATA_DIR": str(tmp_path / "data"),
        "SETTINGS": str(settings),
        "URL": f"http://127.0.0.1:{port}",
        "SETTLE": "1",
        "WITHIN": "60",
    }
    made = Machine(tmp_path, environment, environment["URL"])
    made.program(REAL.format(python=shlex.quote(sys.executable)))
    shutil.copy(tmp_path / "program", tmp_path / "comfy-api-service-v1/.venv/bin/comfy-api")
    root.symlink_to(tmp_path / "comfy-api-service-v1")
    subprocess.run([tools / "systemctl", "start"], env=environment, check=True)
    yield made
    with suppress(ProcessLookupError):
        os.kill(made.pid, signal.SIGKILL)


def until_ready(url: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            if httpx2.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < end, "it is not ready"
        time.sleep(0.05)


def test_an_upgrade_and_one_that_fails(machine: Machine) -> None:
    until_ready(machine.url)
    before = machine.pid
    done = machine.upgrade("v2")
    assert done.returncode == 0, done.stdout + done.stderr
    root = Path(machine.environment["ROOT"])
    second = machine.folder / "comfy-api-service-v2"
    assert root.readlink() == second
    assert machine.pid != before
    assert httpx2.get(f"{machine.url}/health/ready", trust_env=False).status_code == 200
    [archive] = (machine.folder / "backups").glob("comfy-api-*.tar")
    ran = [
        "serve",
        f"backup {machine.folder}/backups",
        f"restore --check {archive}",
        "doctor --no-backends",
        "migrate",
        "serve",
    ]
    assert machine.ran() == ran
    assert str(archive) in done.stdout
    assert "is what runs" in machine.upgrade("v2").stderr

    machine.program(BROKEN)
    machine.environment["WITHIN"] = "1"
    failed = machine.upgrade("v3")
    assert failed.returncode == 1
    assert root.readlink() == machine.folder / "comfy-api-service-v3"
    assert "To go back to the release before" in failed.stderr
    told = failed.stderr.partition("before:\n")[2].partition("\n\nThe last")[0]
    (second / ".venv/bin/comfy-api").write_text(f"#!/bin/sh\n{TOO_OLD}\n")
    before_it = len(machine.ran())
    subprocess.run(
        ["sh", "-eu"], input=told, env=machine.environment, text=True, check=True, capture_output=True
    )
    assert root.readlink() == second
    [newest] = re.findall(r"restore --force (\S+)", told)
    assert machine.ran()[before_it:][:2] == ["migrate", f"restore --force {newest}"]
    assert Path(newest).exists()
    assert machine.upgrade("v4").stderr.startswith("error: the service is not ready now")
