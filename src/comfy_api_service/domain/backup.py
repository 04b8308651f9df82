"""What a backup is: one archive, and its manifest, written last, which says what must be in it."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

FORMAT: Final = 1
"""Of the archive; raised when an older program could not read it."""
MANIFEST: Final = "manifest.json"
OBJECTS: Final = "objects.tsv"
KEY: Final = "secret.key"
DATABASES: Final = {"sqlite": "database.sqlite3", "postgresql": "database.dump"}
RESULTS: Final = "results/"
"""Before the keys of stored objects."""
Engine = Literal["sqlite", "postgresql"]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
Told = Callable[[str, int, int | None], None]
"""Progress: what is done, how many bytes of it so far, of how many (None: nobody knows)."""


class BackupRefused(Exception):
    """A backup cannot be made, or not be restored here; the remedy says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored object as its row describes it."""

    key: str
    bytes: int
    sha256: str
    media_type: str

    def line(self) -> str:
        return f"{self.sha256}\t{self.bytes}\t{self.media_type}\t{self.key}\n"

    @classmethod
    def read(cls, line: str) -> "Kept":
        """Raises `BackupRefused`."""
        try:
            sha256, size, media_type, key = line.rstrip("\n").split("\t")
            return cls(key, int(size), sha256, media_type)
        except ValueError:
            raise BackupRefused("The archive's list of results cannot be read.", _DAMAGED) from None


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the archive that is no stored object."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Census:
    """What a database holds, for people to compare."""

    accounts: int
    jobs: int
    open_jobs: int
    workflows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the archive holds. `results`: whether stored objects are in it, or only listed. `key_mark`: by which to
    recognise the key that signs links and tokens, without telling it. `objects` are listed, `held` of them in the
    archive; `absent` have a row and were missing or damaged in the store.
    """

    made_at: str
    version: str
    schema: str
    engine: Engine
    results: bool
    objects: int
    object_bytes: int
    held: int
    census: Census
    key_mark: str
    parts: Mapping[str, Part]
    settings: Mapping[str, str]
    absent: tuple[str, ...]
    format: int = FORMAT

    @property
    def database(self) -> str:
        return DATABASES[self.engine]

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, text: bytes) -> "Manifest":
        """Raises `BackupRefused`."""
        try:
            told: dict[str, Any] = json.loads(text)
            form = int(told["format"])
        except (ValueError, TypeError, KeyError):
            raise BackupRefused("The archive's manifest cannot be read.", _DAMAGED) from None
        if form > FORMAT:
            raise BackupRefused(
                f"The archive is of a newer form ({form}; this version reads up to {FORMAT}).",
                f"Restore it with comfy-api-service {told.get('version')} or newer.",
            )
        try:
            parts = {
                name: Part(int(part["bytes"]), str(part["sha256"])) for name, part in told["parts"].items()
            }
            found = cls(
                made_at=str(told["made_at"]),
                version=str(told["version"]),
                schema=str(told["schema"]),
                engine=told["engine"],
                results=bool(told["results"]),
                objects=int(told["objects"]),
                object_bytes=int(told["object_bytes"]),
                held=int(told["held"]),
                census=Census(**told["census"]),
                key_mark=str(told["key_mark"]),
                parts=parts,
                settings=dict(told["settings"]),
                absent=tuple(told["absent"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BackupRefused("The archive's manifest cannot be read.", _DAMAGED) from None
        if (
            found.engine not in DATABASES
            or {found.database, OBJECTS} - parts.keys()
            or parts.keys() - {found.database, OBJECTS, KEY}
            or not all(_SHA256.fullmatch(part.sha256) for part in parts.values())
        ):
            raise BackupRefused("The archive's manifest cannot be read.", _DAMAGED)
        return found


_DAMAGED: Final = "The archive is damaged, or was not made by `comfy-api backup`: use another one."


def damaged(what: str) -> BackupRefused:
    return BackupRefused(f"The archive is damaged: {what}.", _DAMAGED)


def mark_of(key: bytes) -> str:
    """By which a key is recognised; it does not tell the key."""
    return hmac.new(key, b"comfy-api backup", hashlib.sha256).hexdigest()[:16]
