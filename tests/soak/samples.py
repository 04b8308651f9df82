"""What processes hold, read every few seconds, and what the servers and disks hold, read less often."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
import psutil
import redis
from tests.support.files import files_below
from tests.support.postgres import blocking
from tests.support.schema import NAME

MEGABYTE: Final = 1_000_000.0
NOISE: Final = {"memory": 4.0, "handles": 8.0, "threads": 3.0, "connections": 6.0, "keys": 60.0}
"""By measure: growth that says nothing. Connections and handles come and go with callers."""
UNITS: Final = {"memory": "MB"}
_FIVE_SECONDS_OF_A_SERVER: Final = 5


@dataclass(slots=True)
class Samples:
    """Of each subject and measure, seconds since the start and value."""

    series: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of processor that each subject used, its ended lives included."""
    _seen: dict[int, float] = field(default_factory=dict)

    def add(self, when: float, subject: str, **values: float) -> None:
        for measure, value in values.items():
            self.series[subject, measure].append((when, value))

    def process(self, when: float, subject: str, pid: int) -> None:
        """Of a process, if it lives."""
        try:
            one = psutil.Process(pid)
            with one.oneshot():
                used = one.cpu_times()
                memory, threads, handles = one.memory_info().rss, one.num_threads(), one.num_fds()
            connections = len(one.net_connections(kind="inet"))
        except psutil.Error:
            return
        self.add(
            when, f"{subject} #{pid}", memory=memory / MEGABYTE, handles=handles, threads=threads,
            connections=connections,
        )  # fmt: skip
        self.used(subject, pid, used.user + used.system)

    def used(self, subject: str, pid: int, seconds: float) -> None:
        self.cpu[subject] += seconds - self._seen.get(pid, 0.0)
        self._seen[pid] = seconds

    def servers(self, when: float) -> None:
        """PostgreSQL, Valkey and the store: children of this process, told by their programs."""
        memory: dict[str, float] = defaultdict(float)
        count: dict[str, int] = defaultdict(int)
        for one in psutil.Process().children(recursive=True):
            try:
                with one.oneshot():
                    name, used, held = one.name(), one.cpu_times(), one.memory_info()
            except psutil.Error:
                continue
            subject = next((told for told in ("postgres", "valkey", "rclone") if told in name), None)
            if subject is not None:
                self.used(subject, one.pid, used.user + used.system)
                memory[subject] += (held.rss - held.shared) / MEGABYTE
                count[subject] += 1
        for subject, megabytes in memory.items():
            self.add(when, subject, memory=megabytes, processes=count[subject])

    def between(self, subject: str, measure: str, since: float) -> list[tuple[float, float]]:
        return [(when, value) for when, value in self.series[subject, measure] if when >= since]


def tables_of_postgres(url: str) -> dict[str, tuple[int, int]]:
    """Rows and bytes of each table; nothing while the server is away."""

    async def read() -> dict[str, tuple[int, int]]:
        connection = await asyncpg.connect(url, timeout=_FIVE_SECONDS_OF_A_SERVER)
        try:
            names = await connection.fetch(
                "SELECT relname, pg_total_relation_size(relid) AS bytes FROM pg_stat_user_tables"
            )
            return {
                one["relname"]: (
                    await connection.fetchval(f'SELECT count(*) FROM "{one["relname"]}"'),
                    one["bytes"],
                )
                for one in names
            }
        finally:
            await connection.close()

    try:
        return blocking(read)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return {}


def tables_of_sqlite(folder: Path) -> dict[str, tuple[int, int]]:
    """Rows of each table, and the bytes of the files as a table of their own."""
    path = folder / NAME
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        ]
        found = {name: (int(db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]), 0) for name in names}
    return {**found, "(database)": (0, path.stat().st_size), "(log)": (0, _size(Path(f"{path}-wal")))}


def keys_of_redis(url: str) -> tuple[int, float] | None:
    """How many keys there are, and the megabytes that all of it takes; None while the server is away."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, protocol=2) as client:
            return client.dbsize(), client.info("memory")["used_memory"] / MEGABYTE
    except redis.RedisError:
        return None


def bytes_below(folder: Path) -> int:
    return sum(map(_size, files_below(folder)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
