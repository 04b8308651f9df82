"""The image's own steps, replayed without a container engine: `make image-check`, not part of the suite.

Runs the build stage's commands as they stand, in an empty folder with an empty interpreter, on the files that the
builder would be given; then the entry point with the image's environment, as its user, on a read-only file system
with a data folder and a temporary one. Needs the package index, and root for the user and the mounts: others run it
as they are. What it cannot show is the base image.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.image import ROOT, argument, context, health_check, only, pairs, stages

from comfy_api_service import __version__

pytestmark = pytest.mark.timeout(900)
LIMIT = 60.0
"""Seconds; nothing waits that long when it works."""
READ_ONLY = """
root=$1
for folder in "$root" "$root/data" "$root/tmp"; do mount --bind "$folder" "$folder"; done
for folder in "$root" /; do mount -o remount,bind,ro "$folder"; done
shift
exec "$@"
"""


@dataclass(frozen=True)
class Image:
    """What was built, where, and the folder that stands for `/data`."""

    root: Path
    data: Path
    environment: Mapping[str, str]

    @property
    def installed(self) -> Path:
        return self.root / "opt" / "comfy-api"

    def command(self, *arguments: str) -> list[str]:
        """As the image's user, without any capability, with all but two folders read-only."""
        if os.geteuid() != 0:
            return list(arguments)
        mounted = [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-euc",
            READ_ONLY,
            "sh",
            str(self.root),
        ]
        return [*mounted, *_as_user(), *arguments]

    def run(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.data,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )


def _as_user() -> list[str]:
    """What becomes the image's user; by `env`, since setpriv itself still finds commands with root's rights."""
    user, _, group = only("USER").rest.partition(":")
    dropped = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return ["setpriv", f"--reuid={user}", f"--regid={group}", *dropped, "env"]


def _interpreter() -> str | None:
    """One of the image's version that its user may run: root's own is often in a folder closed to others."""
    own = getattr(sys, "_base_executable", sys.executable)
    if os.geteuid() != 0:
        return str(own)
    system = shutil.which(f"python{argument('PYTHON_VERSION')}", path="/usr/local/bin:/usr/bin")
    for python in (own, system):
        if python and subprocess.run([*_as_user(), python, "-c", "import venv"], check=False).returncode == 0:
            return str(python)
    return None


def _may_mount() -> bool:
    """Whether this root may do what an engine does; one inside a container often may not."""
    return os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if not _may_mount():
        pytest.skip("root needs the right to make mounts here (or run it as another user)")
    python = _interpreter()
    if python is None:
        pytest.skip("the image's user may run no Python of its version here")
    # pytest's own folders are closed to the image's user
    root = Path(tempfile.mkdtemp(prefix="image-")).resolve()
    root.chmod(0o711)
    build, system, data = root / "build", root / "system", root / "data"
    for path in context():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, build / path)
    subprocess.run([python, "-m", "venv", system], check=True)
    index = {
        key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "HTTP", "NO_P"))
    }
    shell = {"PATH": f"{system / 'bin'}:/usr/bin:/bin", "HOME": str(root), **index}
    for instruction in stages()[0]:
        if instruction.word == "RUN":
            line = instruction.rest.replace("/opt/comfy-api", str(root / "opt" / "comfy-api"))
            subprocess.run(["/bin/sh", "-ec", line], cwd=build, env=shell, check=True)
    for folder in (data, root / "tmp"):
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, *map(int, only("USER").rest.split(":")))
    told = {
        key: value.replace("/opt/comfy-api", str(root / "opt" / "comfy-api"))
        for key, value in pairs("ENV").items()
    }
    told["PATH"] = told["PATH"].replace("$PATH", "/usr/bin:/bin")
    yield Image(root, data, {**told, "DATA_DIR": str(data), "TMPDIR": str(root / "tmp")})
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def entry(image: Image) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts the entry point with arguments and settings; it is gone at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **settings: str) -> "subprocess.Popen[bytes]":
        point = only("ENTRYPOINT").exec_form
        assert point is not None
        process = subprocess.Popen(
            image.command(*point, *arguments), cwd=image.data, env={**image.environment, **settings}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_it_holds_what_the_lock_names_and_nothing_else(image: Image) -> None:
    python = str(image.root / "system" / "bin" / "python")
    target = str(image.installed)
    listed = subprocess.run(
        [python, "-m", "pip", "--python", target, "list", "--format=json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = {
        package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed.stdout)
    }
    assert found.pop("comfy-api-service") == __version__
    locked = dict(
        line.split(" ")[0].split("==")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and line[0].isalnum()
    )
    assert found.items() <= locked.items()
    subprocess.run([python, "-m", "pip", "--python", target, "check"], check=True)


def test_it_is_small(image: Image) -> None:
    size = sum(path.lstat().st_size for path in image.installed.rglob("*"))
    assert size < 200 * 1024**2


def test_its_user_runs_it_and_cannot_change_it(image: Image) -> None:
    told = image.run("comfy-api", "version")
    assert (told.returncode, told.stdout) == (0, f"comfy-api-service {__version__}\n")
    assert image.run("comfy-api", "openapi").stdout == (ROOT / "openapi.json").read_text(encoding="utf-8")
    if os.geteuid() == 0:
        for folder in (image.installed, Path("/var/tmp"), Path("/tmp")):  # the last two are everybody's
            assert "Read-only" in image.run("touch", str(folder / "x")).stderr
        assert image.run("id", "-u").stdout.strip() == only("USER").rest.partition(":")[0]


def test_it_refuses_to_listen_for_everybody_unless_told(image: Image) -> None:
    refused = image.run("comfy-api", "serve", PORT=str(_free_port()))
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr


def test_it_serves_is_healthy_and_stops_at_a_signal(
    image: Image, entry: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    port, comfyui = str(_free_port()), str(_free_port())
    simulator = entry("simulate", "--port", comfyui)
    service = entry("serve", "--insecure", PORT=port, COMFYUI_URL=f"http://127.0.0.1:{comfyui}")
    _until(lambda: image.run(*health_check(), PORT=port).returncode == 0)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/generate?wait=60",
        json.dumps({"prompt": "a fox", "steps": 1, "width": 64, "height": 64}).encode(),
        {"Content-Type": "application/json"},
    )
    _until(lambda: _status(f"http://127.0.0.1:{port}/health") == "healthy")
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        assert json.load(answer)["status"] == "completed"
    service.send_signal(signal.SIGTERM)
    assert service.wait(LIMIT) == 0
    simulator.send_signal(signal.SIGTERM)
    assert simulator.wait(LIMIT) == 0
    assert image.run(*health_check(), PORT=port).returncode != 0


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _status(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        return str(json.load(answer)["status"])


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)
