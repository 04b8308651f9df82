"""What every database engine offers: whole functions run in a transaction.

A function that is given to `write` or `read` may await nothing but the queries of its own transaction.
That lets SQLite run it from begin to commit on one thread without a single hop, and PostgreSQL run the
very same function over the network: one implementation of each query, two dialects.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson

from comfy_api_service.domain.errors import Unavailable

T = TypeVar("T")
Params = Mapping[str, Any]


Part = tuple[str, Params | Sequence[Params]]
"""A statement with its values, or with those of many rows."""


class Row(Protocol):
    """One row; columns by name."""

    def __getitem__(self, key: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few words in which the engines differ."""

    name: str
    one_writer: bool
    """Whether writes run one after the other: what one of them has read stays as it is until its end."""

    def locking(self, *tables: str, skipping: bool = False) -> str:
        """Appended to a select: its rows of these tables are locked, in this order, until the transaction ends.

        The lock leaves rows free to be referred to by others. `skipping`: rows that somebody else has are left out.
        """
        if self.one_writer:
            return ""
        return f" FOR NO KEY UPDATE OF {', '.join(tables)}{' SKIP LOCKED' if skipping else ''}"

    def patience(self, most: str) -> str:
        """Appended to the columns of a select: from then on the transaction waits at most so long for a lock."""
        return "" if self.one_writer else f", set_config('lock_timeout', '{most}', true) AS patience"

    def among(self, column: str, param: str) -> str:
        """`column` is one of the JSON list of strings in `param`; one plan, however long the list is."""
        if self.name == "sqlite":
            return f"{column} IN (SELECT value FROM json_each(:{param}))"
        return f"{column} = ANY(ARRAY(SELECT jsonb_array_elements_text(CAST(:{param} AS jsonb))))"


class Reader(Protocol):
    """A transaction that may only read."""

    @property
    def dialect(self) -> Dialect: ...
    async def all(self, sql: str, params: Params | None = None) -> Sequence[Row]: ...
    async def one(self, sql: str, params: Params | None = None) -> Row | None: ...

    async def several(self, *queries: tuple[str, Params]) -> list[Sequence[Row]]:
        """The rows of each, in one go. All see the same state; of rows that are locked by one, the newest.

        Locks are taken in the order of the queries.
        """
        ...


class Tx(Reader, Protocol):
    """A transaction that may write; committed when its function returns, rolled back when it raises."""

    async def run(self, sql: str, params: Params | None = None) -> int:
        """Execute; returns the number of rows touched."""
        ...

    async def many(self, sql: str, rows: Iterable[Params]) -> None:
        """Execute once a row, in one go."""
        ...

    async def lock(self, name: str) -> None:
        """Wait until nobody else has this name, and have it until the transaction ends."""
        ...

    async def together(self, *statements: "Part") -> None:
        """Execute several, in one go and in any order: no two may touch the same row, and none may need what
        another one writes, but for foreign keys.
        """
        ...

    async def one_together(self, first: "tuple[str, Params]", *others: "Part") -> Row | None:
        """The row that the first one returns; the others are executed with it, as by `together`."""
        ...


class CommitUnknown(Unavailable):
    """The connection was lost while it committed: all of the transaction is there, or nothing."""


class LockTimeout(Unavailable):
    """Somebody kept for too long what this transaction had to change."""


class Database(Protocol):
    """The truth. Raises `Unavailable` when it cannot be reached, never half a transaction."""

    @property
    def dialect(self) -> Dialect: ...

    async def write(
        self, function: Callable[[Tx], Awaitable[T]], *, followed: bool = False, single: bool = False
    ) -> T:
        """Run it in a transaction; again from its begin after a conflict with another one, so it must have no
        effects of its own. A caller that leaves undoes nothing. Raises `CommitUnknown`.

        `followed`: somebody was just told to write what belongs to this, and may share the commit. `single`: it
        is one statement and no more, which is a transaction by itself where that spares round trips.
        """
        ...

    async def read(self, function: Callable[[Reader], Awaitable[T]]) -> T:
        """Run it on committed data; each of its queries sees what was committed when it began."""
        ...

    async def close(self) -> None: ...


def dumps(value: Any) -> str:
    """A JSON column's text; keys sorted, so that equal values are equal texts."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def packed(value: Any) -> bytes:
    """The same as bytes, for columns that are read whole; equal values are equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def loads(text: str | bytes | None) -> Any:
    return None if text is None else orjson.loads(text)
