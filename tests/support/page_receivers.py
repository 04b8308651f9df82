"""The receivers of docs/WEBHOOKS.md, run as they stand but for the port."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from standardwebhooks import Webhook
from tests.support.pages import LIMIT, Place, blocks

PAGE = "docs/WEBHOOKS.md"
PORT = "9000"
"""Of the receiver, on the page."""


@dataclass(frozen=True)
class PageReceiver:
    """A program of the page while it runs."""

    port: int
    printed: Path

    def lines(self) -> list[str]:
        return self.printed.read_text(encoding="utf-8").splitlines()

    def until(self, count: int) -> list[str]:
        """What it printed, once it is so much."""
        end = time.monotonic() + LIMIT
        while len(lines := self.lines()) < count:
            assert time.monotonic() < end, lines
            time.sleep(0.05)
        return lines

    def answer(self, body: bytes, headers: Mapping[str, str]) -> int:
        url = f"http://127.0.0.1:{self.port}/hooks"
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        return httpx2.post(url, content=body, headers=sent, trust_env=False).status_code

    def half(self) -> None:
        """A request that breaks off."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"POST /hooks HTTP/1.1\r\nHost: host\r\nContent-Length: 10\r\n\r\nfive.")

    def listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def page_receiver(place: Place, language: str, port: int, *secrets: str) -> Iterator[PageReceiver]:
    """Started as the program's first line says."""
    [code] = blocks(PAGE, language)
    told = re.match(r"(?:#|//) (\S+): (\w+) (\S+) whsec_… whsec_…, ", code)
    assert told is not None
    name, runs, file = told.groups()
    assert name == file
    assert code.count(PORT) == 1
    (place.folder / name).write_text(code.replace(PORT, str(port)), encoding="utf-8")
    receiver, said = PageReceiver(port, place.folder / "printed"), place.folder / "said"
    with receiver.printed.open("wb") as output, said.open("wb") as faults:
        process = subprocess.Popen(
            [{"python3": sys.executable}.get(runs, runs), name, *secrets],
            cwd=place.folder, stdout=output, stderr=faults,
        )  # fmt: skip
    try:
        end = time.monotonic() + LIMIT
        while not receiver.listens():
            assert process.poll() is None, said.read_text(encoding="utf-8")
            assert time.monotonic() < end
            time.sleep(0.02)
        yield receiver
        assert process.poll() is None, said.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait(10)


def signed(secret: str, body: bytes, *, age: float = 0) -> dict[str, str]:
    """Headers, by the standard's own library."""
    at = datetime.now(UTC) - timedelta(seconds=age)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }
