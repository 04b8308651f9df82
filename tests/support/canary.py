"""Words of which each kind has a mark of its own, and where they are searched for."""

import base64
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
from tests.support.postgres import blocking

WORD: Final = re.compile(rb"zq((?:(?!zq)[a-z])+?)canary", re.IGNORECASE)
_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")


def word(kind: str) -> str:
    return f"zq{kind}canary"


@dataclass
class Searched:
    """What was found where. `texts` are searched for words, and for the secrets that the service itself made."""

    texts: dict[str, list[bytes]] = field(default_factory=dict)
    secrets: dict[str, str | bytes] = field(default_factory=dict)

    def add(self, place: str, *found: bytes | str) -> None:
        self.texts.setdefault(place, []).extend(
            one.encode("utf-8", "replace") if isinstance(one, str) else one for one in found
        )

    def found(self) -> dict[str, set[str]]:
        """Places by kind."""
        places: dict[str, set[str]] = {}
        for place, texts in self.texts.items():
            for text in texts:
                for kind in WORD.findall(text):
                    places.setdefault(kind.decode().lower(), set()).add(place)
                for name, secret in self.secrets.items():
                    if any(form in text for form in _forms(secret)):
                        places.setdefault(name, set()).add(place)
        return places


def _forms(secret: str | bytes) -> tuple[bytes, ...]:
    raw = secret if isinstance(secret, bytes) else secret.encode()
    return raw, base64.b64encode(raw).rstrip(b"=")


def rows(url: str) -> tuple[list[bytes | str], list[str]]:
    """All that stands in a PostgreSQL database; the statements and names that its connections show."""

    async def read() -> tuple[list[bytes | str], list[str]]:
        connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            values: list[bytes | str] = []
            for (table,) in tables:
                for row in await connection.fetch(f'SELECT * FROM "{table}"'):
                    values += [one if isinstance(one, bytes) else str(one) for one in row.values()]
            shown = await connection.fetch("SELECT query, application_name FROM pg_stat_activity")
            return values, [str(one) for row in shown for one in row.values()]
        finally:
            await connection.close()

    return blocking(read)


@dataclass
class Overheard:
    """Every command that a Valkey or Redis was sent, what scripts do there and what is published among them."""

    said: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> bytes:
        """With bytes as they were sent."""
        return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), bytes(self.said))


@contextmanager
def overhearing(path: Path, password: str) -> Iterator[Overheard]:
    """By the server's own MONITOR, at its socket."""
    heard = Overheard()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(f"AUTH {password}\r\nMONITOR\r\n".encode())
        thread = threading.Thread(target=_hear, args=(connection, heard), daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _hear(connection: Any, heard: Overheard) -> None:
    while piece := connection.recv(1 << 16):
        heard.said += piece
