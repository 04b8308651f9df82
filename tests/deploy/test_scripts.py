"""The shell scripts: sound, and the two for Compose against a real server whose tools stand in for its container's."""

import os
import stat
import subprocess
from pathlib import Path

import asyncpg
import pytest
from tests.deploy.test_systemd import UNITS as UNITS_OF_SYSTEMD
from tests.deploy.test_systemd import read
from tests.support.image import ROOT
from tests.support.postgres import PostgresServer, blocking
from tests.support.systemd_run import SYSTEMD_RUN
from tests.support.tools import postgres_tools

SCRIPTS = ROOT / "deploy" / "scripts"
DOCKER = """#!/bin/sh
# docker compose exec -T postgres TOOL …: the tool itself, told where the server is; docker run …: in the volume
echo "$@" >>"$STATE/docker"
pwd >>"$STATE/folders"
if [ "$1" = run ]; then
    [ -z "${SIGNAL-}" ] || kill -s "$SIGNAL" 0
    for script; do :; done
    exec sh -euc "$(echo "$script" | sed "s#/store#$STATE/volume#g")"
fi
shift
case $1 in
exec) shift 3; tool=$1; shift; exec "$tool" --host=127.0.0.1 --port="$PGPORT" "$@" ;;
config) echo postgres:18-alpine ;;
esac
"""


def run(
    folder: Path, server: PostgresServer, script: str, *arguments: str, **more: str
) -> "subprocess.CompletedProcess[str]":
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "docker").write_text(DOCKER)
    (tools / "docker").chmod(0o755)
    environment = {
        "PATH": f"{tools}:{postgres_tools()}:{os.environ['PATH']}",
        "STATE": str(folder),
        "PGPORT": str(server.port),
        **more,
    }
    return subprocess.run(
        ["env", "--default-signal=HUP", "sh", SCRIPTS / script, *arguments],  # ignored below `nohup`
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


def accounts(server: PostgresServer, database: str) -> list[str]:
    async def read() -> list[str]:
        connection = await asyncpg.connect(server.url(database))
        try:
            return [str(row[0]) for row in await connection.fetch("SELECT id FROM accounts ORDER BY id")]
        finally:
            await connection.close()

    return blocking(read)


@pytest.fixture
def stack(tmp_path: Path, postgres: PostgresServer) -> PostgresServer:
    """The database and the volume of the stack of Compose."""
    postgres.execute("DROP ROLE IF EXISTS comfy; CREATE ROLE comfy SUPERUSER LOGIN")
    postgres.execute("CREATE DATABASE comfy TEMPLATE template_of_tests")
    postgres.execute(
        "INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_a', 'a', 'free', 0)", "comfy"
    )
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "block").write_text("a result")
    return postgres


def test_the_stack_of_compose_is_backed_up_and_restored(tmp_path: Path, stack: PostgresServer) -> None:
    try:
        for day in range(3):
            (tmp_path / "backups").mkdir(exist_ok=True)
            (tmp_path / "backups" / f"comfy-2020010{day}T000000Z.dump").touch()
        made = run(tmp_path, stack, "backup.sh", "--results", KEEP="2")
        assert made.returncode == 0, made.stderr
        names = sorted(path.name for path in (tmp_path / "backups").iterdir())
        assert len(names) == 3, "two dumps and one of the volume"
        artifacts, _, dump = ((tmp_path / "backups") / name for name in names)
        assert stat.S_IMODE(dump.stat().st_mode) == 0o600
        stack.execute(
            "INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_b', 'b', 'free', 0)", "comfy"
        )
        (tmp_path / "volume" / "block").unlink()

        refused = run(tmp_path, stack, "restore.sh", str(dump))
        assert (refused.returncode, "already" in refused.stderr) == (1, True)
        (tmp_path / "bad.dump").write_bytes(dump.read_bytes()[:1000])
        assert "damaged" in run(tmp_path, stack, "restore.sh", "--force", "bad.dump").stderr
        assert accounts(stack, "comfy") == ["acc_a", "acc_b"]

        (tmp_path / "bad.tar").write_bytes(b"nothing" + artifacts.read_bytes()[:1000])
        (tmp_path / "docker").unlink()
        assert (
            "bad.tar is damaged" in run(tmp_path, stack, "restore.sh", "--force", str(dump), "bad.tar").stderr
        )
        assert not (tmp_path / "docker").exists(), "nothing was stopped"

        (tmp_path / "volume" / ".later").write_text("another")
        names = [str(path.relative_to(tmp_path)) for path in (dump, artifacts)]
        done = run(tmp_path, stack, "restore.sh", "--force", *names)
        assert done.returncode == 0, done.stderr
        [moved] = (tmp_path / "volume").glob("replaced_*")
        assert (moved / ".later").read_text() == "another"
        assert not (tmp_path / "volume" / ".later").exists()
        assert moved.name in done.stdout
        assert set((tmp_path / "folders").read_text().split()) <= {str(SCRIPTS.parent), str(tmp_path)}
        ran = (tmp_path / "docker").read_text()
        assert "--file" not in ran, "deploy/.env says which files there are"
        assert accounts(stack, "comfy") == ["acc_a"]
        assert (tmp_path / "volume" / "block").read_text() == "a result"
        aside = done.stdout.split("the database ")[1].split(":")[0]
        assert accounts(stack, aside) == ["acc_a", "acc_b"]
        stack.execute(f"DROP DATABASE {aside}")
        assert ran.index("stop api worker") < ran.index("--single-transaction")
    finally:
        stack.execute("DROP DATABASE comfy WITH (FORCE); DROP ROLE comfy")


def test_a_store_with_something_in_it_is_not_overwritten(tmp_path: Path, stack: PostgresServer) -> None:
    try:
        made = run(tmp_path, stack, "backup.sh", "--results", "kept")
        assert made.returncode == 0, made.stderr
        artifacts, dump = sorted(map(str, (tmp_path / "kept").iterdir()))
        stack.execute("DROP DATABASE comfy; CREATE DATABASE comfy")
        (tmp_path / "volume" / "block").write_text("another")
        (tmp_path / "docker").unlink()
        refused = run(tmp_path, stack, "restore.sh", dump, artifacts)
        assert (refused.returncode, "in the store already" in refused.stderr) == (1, True)
        assert " stop " not in (tmp_path / "docker").read_text()
        assert (tmp_path / "volume" / "block").read_text() == "another"
        (tmp_path / "volume" / "block").unlink()
        (tmp_path / "volume" / "replaced_20200101000000").mkdir()
        assert run(tmp_path, stack, "restore.sh", dump, artifacts).returncode == 0
        assert (tmp_path / "volume" / "block").read_text() == "a result"
    finally:
        stack.execute("DROP DATABASE comfy WITH (FORCE); DROP ROLE comfy")


@pytest.mark.parametrize(("signal", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_backup_that_is_stopped_in_the_middle_starts_the_store_again(
    tmp_path: Path, postgres: PostgresServer, signal: str, code: int
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    stopped = run(tmp_path, postgres, "backup.sh", "--results", "kept", SIGNAL=signal)
    assert stopped.returncode == code
    told = [line for line in (tmp_path / "docker").read_text().splitlines() if line.startswith("compose st")]
    assert told == ["compose stop store", "compose start store"]
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".dump"], "the database's is whole"


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, postgres: PostgresServer) -> None:
    failed = run(tmp_path, postgres, "backup.sh", "kept")
    assert failed.returncode != 0
    assert list((tmp_path / "kept").iterdir()) == []


UNITS = """comfy-api-api.service loaded active running API
comfy-api-worker@1.service loaded active running worker
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$MACHINE/systemctl"
case $1 in
list-units) cat "$MACHINE/units" ;;
show) [ "$4" != "$DIES" ] || echo again >>"$MACHINE/died"; wc -l <"$MACHINE/died" ;;
esac
"""
PROGRAM = """#!/bin/sh
echo "$@" >>"$MACHINE/commands"
env >"$MACHINE/environment"
[ "$1" != backup ] || echo "$MACHINE/some.tar"
"""


def upgrade(folder: Path, units: str = UNITS, **more: str) -> "subprocess.CompletedProcess[str]":
    """With a file of settings whose values a shell would take apart, and tools that only say what they were told."""
    tools = folder / "tools"
    tools.mkdir()
    (folder / "v1/.venv/bin").mkdir(parents=True)
    (folder / "comfy-api-service-v2/.venv/bin").mkdir(parents=True)
    for path, text in {
        tools / "systemctl": SYSTEMCTL,
        tools / "systemd-run": SYSTEMD_RUN,
        tools / "curl": "#!/bin/sh\n",
        tools / "make": "#!/bin/sh\n",
        folder / "v1/.venv/bin/comfy-api": PROGRAM,
        folder / "comfy-api-service-v2/.venv/bin/comfy-api": PROGRAM,
        folder / "units": units,
        folder / "died": "",
        folder / "settings": "# of the units\nSECRET_KEY=abc$def`x`\n"
        "DATABASE_URL=postgresql://a:b@c/d?sslmode=require&application_name=x\n",
    }.items():
        path.write_text(text)
        path.chmod(0o755)
    (folder / "comfy-api-service").symlink_to(folder / "v1")
    return subprocess.run(
        ["sh", SCRIPTS / "upgrade.sh", "v2"],
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "MACHINE": str(folder),
            "ROOT": str(folder / "comfy-api-service"),
            "SETTINGS": str(folder / "settings"),
            "SETTLE": "1",
            "DIES": "",
            **more,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_upgrade_has_the_settings_of_the_units_as_systemd_reads_them(tmp_path: Path) -> None:
    done = upgrade(tmp_path)
    assert done.returncode == 0, done.stderr
    told = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert told["DATABASE_URL"] == "postgresql://a:b@c/d?sslmode=require&application_name=x"
    assert told["SECRET_KEY"] == "abc$def`x`"
    assert told["DATA_DIR"] == "/var/lib/comfy-api/api", "comfy-api.service does not run here"
    assert "doctor --no-backends" in (tmp_path / "commands").read_text().splitlines()
    unit = read(UNITS_OF_SYSTEMD / "comfy-api-api.service")
    for line in (tmp_path / "systemd-run").read_text().splitlines():
        assert f"--uid={unit['User'][0]} --gid={unit['Group'][0]}" in line
        assert f"--working-directory={unit['WorkingDirectory'][0]}" in line
    restarted = [
        line for line in (tmp_path / "systemctl").read_text().splitlines() if line.startswith("restart")
    ]
    assert restarted == ["restart comfy-api-worker@1.service", "restart comfy-api-api.service"]


def test_an_upgrade_stops_at_a_worker_that_dies_again_and_again(tmp_path: Path) -> None:
    """Its unit is active and the API ready all the while."""
    failed = upgrade(tmp_path, DIES="comfy-api-worker@1.service")
    assert failed.returncode == 1
    assert "comfy-api-worker@1.service does not go on running" in failed.stderr
    assert "To go back to the release before" in failed.stderr
    assert "restart comfy-api-api.service" not in (tmp_path / "systemctl").read_text()


@pytest.mark.parametrize("script", ["restore.sh", "upgrade.sh"])
def test_without_arguments_they_say_how_they_are_called(script: str, tmp_path: Path) -> None:
    told = subprocess.run(["sh", SCRIPTS / script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert f"deploy/scripts/{script}" in told.stderr


def test_they_can_be_run_and_end_their_lines_as_a_shell_wants() -> None:
    for script in [*SCRIPTS.iterdir(), *(ROOT / "deploy").glob("*.sh")]:
        content = script.read_bytes()
        assert content.startswith(b"#!/bin/sh\n")
        assert b"\r" not in content
        if script.parent == SCRIPTS:
            assert script.stat().st_mode & 0o111 == 0o111
