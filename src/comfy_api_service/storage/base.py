"""What every store promises; the suite in tests/integration/storage holds each implementation to it.

    StorageError                  a store did not do what it was asked
    ├── StorageFull               no room left: the object was not written
    ├── StorageUnavailable        cannot be reached, or failed: try again later
    ├── ObjectMissing             no object has this key
    └── InvalidKey                the key is not of the shape that `checked_key` asks for

No message names a path, a host or a bucket: they may be shown to callers.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

KEY_LIMIT: Final = 512
"""Characters of the longest key."""

_SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,126}"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,7}}")
_PREFIX: Final = re.compile(rf"(?:{_SEGMENT}/){{0,7}}(?:{_SEGMENT})?")


class StorageError(Exception):
    """A store did not do what it was asked; the text is safe to show."""


class StorageFull(StorageError):
    """No room left; the object was not written and nothing of it stays behind."""


class StorageUnavailable(StorageError):
    """The store cannot be reached or failed; the same call may succeed later."""


class ObjectMissing(StorageError):
    """No object has this key."""


class InvalidKey(StorageError):
    """The key is not one that this service would make."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is durable now; `sha256` is in lowercase hex."""

    key: str
    bytes: int
    sha256: str


class Listed(NamedTuple):
    """One line of a listing; `modified_at` in seconds since the epoch, by the store's own clock."""

    key: str
    bytes: int
    modified_at: float


class ObjectReader(Protocol):
    """An open object: what it held when it was opened. If it is replaced meanwhile that, or an error, no mixture."""

    @property
    def size(self) -> int: ...

    def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to but without `end`; raises `StorageUnavailable` if cut short."""
        ...


class Sink(Protocol):
    """What takes objects."""

    async def expect(self, prefix: str) -> None:
        """Objects under this prefix will be put soon: what can be done ahead is done now.

        Raises as `put` does; nothing depends on its success.
        """
        ...

    async def forget(self, prefix: str) -> None:
        """Nothing will be put under this prefix after all; objects that are there stay. Raises as `put` does."""
        ...

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        """Write an object: durable when this returns, whole or not at all; the same key again replaces.

        What `body` raises passes through, and leaves whatever stood under the key before.
        Raises `StorageFull`, `StorageUnavailable`, `InvalidKey`.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are no error. Raises `StorageUnavailable`, `InvalidKey`."""
        ...


class Storage(Sink, Protocol):
    """A store of whole objects under keys such as `jobs/job_…/1/image_0.png`."""

    def open(self, key: str) -> AbstractAsyncContextManager[ObjectReader]:
        """Open for reading; entering raises `ObjectMissing`, `StorageUnavailable` or `InvalidKey`."""
        ...

    def link(self, key: str, *, expires_at: float, media_type: str, filename: str) -> str:
        """A link that lets anybody read this object until `expires_at` (seconds since the epoch)."""
        ...

    def list_prefix(self, prefix: str) -> AsyncIterator[Listed]:
        """Every object whose key begins with `prefix` ("": all), in no promised order."""
        ...

    async def clear_unfinished(self, before: float) -> int:
        """Remove what puts that never ended left behind before that time; how many they were."""
        ...

    async def check(self) -> None:
        """Write, read and remove a probe object, within a bounded time; raises `StorageError`."""
        ...


def is_key(key: str) -> bool:
    """True for 1 to 8 segments of plain characters, none hidden, none that leads out of the store."""
    return len(key) <= KEY_LIMIT and _KEY.fullmatch(key) is not None


def checked_key(key: str) -> str:
    """The key itself, or `InvalidKey`."""
    if not is_key(key):
        raise InvalidKey("This is not a key of the store.")
    return key


def checked_prefix(prefix: str) -> str:
    """As `checked_key`, for the beginning of keys; "" is the beginning of all."""
    if len(prefix) > KEY_LIMIT or not _PREFIX.fullmatch(prefix):
        raise InvalidKey("This is not the beginning of a key of the store.")
    return prefix
