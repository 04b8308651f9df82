"""The stack of many machines: two API processes, two workers, over PostgreSQL, Valkey and an S3 store."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.chaos.matrix import Cell, Column, Command, Row, Senseless, Stack
from tests.chaos.outages import Server
from tests.chaos.proxy import Line
from tests.support.postgres import PostgresServer
from tests.support.processes import Process
from tests.support.s3 import S3Server, s3_settings
from tests.support.valkey import free_port, valkey

from comfy_api_service.storage.s3 import Bucket

DATABASE: Final = "comfy"
API: Final = "API"
WORKER: Final = "worker"
"""What the names of these processes begin with."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    servers: Mapping[str, Server]
    bucket: Bucket
    results: Path

    def environment(self, name: str) -> dict[str, str]:
        """The settings of a process; its lines lead to the servers."""
        port = {server: found.lines[name].port for server, found in self.servers.items()}
        bucket = replace(self.bucket, endpoint=f"http://127.0.0.1:{port['S3']}")
        return {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port['PostgreSQL']}/{DATABASE}",
            "REDIS_URL": f"redis://127.0.0.1:{port['Redis']}",
            **{key.upper(): value for key, value in s3_settings(bucket).items()},
            "SECRET_KEY": "of-the-campaign-alone-0f2c9d7b51e8a463",
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def _surrounded(folder: Path, make: Callable[[], Line], names: Sequence[str]) -> Iterator[Surroundings]:
    """The servers, started, with a line for each process to each of them."""

    def led(port: int) -> dict[str, Line]:
        lines = {name: make() for name in names}
        for line in lines.values():
            line.lead_to(port)
        return lines

    with ExitStack() as stack:
        postgres = PostgresServer()
        stack.callback(postgres.remove)
        postgres.start()
        postgres.execute(f"CREATE DATABASE {DATABASE}")
        redis = stack.enter_context(valkey(port=free_port()))
        (folder / "s3").mkdir()
        store = S3Server(folder / "s3")
        stack.callback(store.kill)
        bucket = store.bucket("results")
        yield Surroundings(
            {
                "PostgreSQL": Server(
                    "PostgreSQL",
                    postgres.url(DATABASE),
                    led(postgres.port),
                    kill=postgres.kill,
                    start=postgres.start,
                    pause=lambda: postgres.send(signal.SIGSTOP),
                    resume=lambda: postgres.send(signal.SIGCONT),
                    end=postgres.stop,
                ),
                "Redis": Server(
                    "Redis",
                    redis.url,
                    led(redis.port),
                    kill=redis.kill,
                    start=redis.start,
                    pause=redis.pause,
                    resume=redis.go_on,
                    end=redis.end,
                ),
                "S3": Server(
                    "S3",
                    store.url,
                    led(store.port),
                    kill=store.kill,
                    start=partial(_begin_anew, store),
                    pause=store.pause,
                    resume=store.resume,
                    end=store.end,
                ),
            },
            bucket,
            store.folder(bucket),
        )


def _begin_anew(store: S3Server) -> None:
    """What it was writing when it was killed is no object, and goes: this server leaves that to its operator."""
    for path in store.root.rglob(".rclone_temp_put_*"):
        path.unlink()
    store.start()


STACK: Final = Stack(
    (
        *(Command(f"{API} {n}", ("api", "--port", "0"), answers=True, drives=False) for n in (1, 2)),
        *(Command(f"{WORKER} {n}", ("worker",), answers=False, drives=True) for n in (1, 2)),
    ),
    _surrounded,
)


def scaled(row: Row, **others: Cell | Senseless) -> Row:
    """The same row on this stack; `others`: cells that are other ones there, by the names of their columns."""
    cells = {**row.cells, **{Column[name]: cell for name, cell in others.items()}}
    return Row(f"{row.name} (scaled)", row.place + 1, cells, STACK)


def driven(process: Process) -> set[str]:
    """Names of the backends that a worker says it has taken and not given back."""
    held: set[str] = set()
    for line in tuple(process.output):
        told: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "backend_taken":
            held.add(told["backend"])
        elif told.get("event") in {"backend_handed_over", "backend_lost"}:
            held.discard(told["backend"])
        elif told.get("event") == "worker_replaced":
            held.clear()
    return held
