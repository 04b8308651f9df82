"""Statements as the query modules write them, `:name` for a value, as PostgreSQL's protocol wants them: `$1`.

Many rows become one statement over lists, several statements become one: each costs a round trip, and the
server more than its rows do.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

_RETURNING: Final = re.compile(r"\bRETURNING\b")
_NAME: Final = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_INSERT: Final = re.compile(
    r"(?P<head>\s*INSERT INTO\s.*?)\bVALUES\s*\((?P<values>.*?)\)(?P<tail>\s*(?:ON CONFLICT\b.*)?)", re.DOTALL
)
_UPDATE: Final = re.compile(r"(?P<head>\s*UPDATE\s+\w+\s+SET\s.*?)(?P<tail>\sWHERE\s.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with numbered places; `names` are the values for them, in order."""

    sql: str
    names: tuple[str, ...]

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        return [params[name] for name in self.names]

    def columns(self, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
        """A list of values for each place, for a statement made by `for_many`."""
        listed = list(rows)
        return [[row[name] for row in listed] for name in self.names]

    def beginning_at(self, first: int) -> str:
        """The SQL with its places numbered from `first` instead of 1."""
        return re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + first - 1}", self.sql)


@lru_cache(maxsize=512)
def numbered(sql: str) -> Statement:
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"${places.setdefault(found[1], len(places) + 1)}"

    text = _NAME.sub(place, sql)
    return Statement(text, tuple(places))


def takes_many(sql: str) -> bool:
    """Whether `for_many` can make one statement for many rows of it: an INSERT or UPDATE, nothing returned."""
    if _RETURNING.search(sql):
        return False
    return _insert_of_values(sql) is not None or _UPDATE.fullmatch(sql) is not None


def for_many(sql: str, types: Sequence[str]) -> Statement:
    """One statement for as many rows as its lists are long; `types` are those of `numbered(sql)`, in order."""
    names = numbered(sql).names
    lists = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, 1))
    columns = ", ".join(f"_{name}" for name in names)
    rows = f"unnest({lists}) AS r({columns})"
    if insert := _INSERT.fullmatch(sql):
        values = _NAME.sub(r"r._\1", insert["values"])
        return Statement(f"{insert['head']}SELECT {values} FROM {rows}{insert['tail']}", names)
    if update := _UPDATE.fullmatch(sql):
        head, tail = (_NAME.sub(r"r._\1", update[part]) for part in ("head", "tail"))
        return Statement(f"{head} FROM {rows}{tail}", names)
    raise ValueError("neither an INSERT with values nor an UPDATE")


@lru_cache(maxsize=512)
def repeated(sql: str, times: int) -> tuple[str, tuple[str, ...]] | None:
    """An INSERT of `times` rows in one statement with `?` for each value, and the names of one row's values in
    order; None where `sql` is no INSERT whose values alone differ from row to row.
    """
    insert = _insert_of_values(sql)
    if insert is None or _RETURNING.search(sql):
        return None
    row = f"({_NAME.sub('?', insert['values'])})"
    return f"{insert['head']}VALUES {', '.join([row] * times)}{insert['tail']}", tuple(
        _NAME.findall(insert["values"])
    )


def _insert_of_values(sql: str) -> re.Match[str] | None:
    found = _INSERT.fullmatch(sql)
    return found if found is not None and _NAME.search(found["head"] + found["tail"]) is None else None


def joined(statements: Sequence[Statement], *, gives: bool = False) -> str:
    """Several statements as one, their places numbered on and on. None of them sees what another one does.

    `gives`: it gives the rows that the first returns.
    """
    parts = []
    first = 1
    for number, statement in enumerate(statements):
        parts.append(f"s{number} AS ({statement.beginning_at(first)})")
        first += len(statement.names)
    return f"WITH {', '.join(parts)} SELECT {'* FROM s0' if gives else '1'}"


def gathered(queries: Sequence[Statement]) -> str:
    """Several queries as one, whose only row has the rows of each as a JSON list of objects."""
    parts = []
    first = 1
    for query in queries:
        parts.append(
            f"(SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]'::jsonb) FROM ({query.beginning_at(first)}) AS q)"
        )
        first += len(query.names)
    return f"SELECT {', '.join(parts)}"
