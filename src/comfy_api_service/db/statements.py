"""Statements as the query modules write them, `:name` for a value, as PostgreSQL's protocol wants them: `$1`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

_NAME: Final = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_INSERT: Final = re.compile(
    r"(?P<head>\s*INSERT INTO\s.*?)\bVALUES\s*\((?P<values>.*?)\)(?P<tail>\s*(?:ON CONFLICT\b.*)?)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with numbered places; `names` are the values for them, in order."""

    sql: str
    names: tuple[str, ...]

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        return [params[name] for name in self.names]

    def columns(self, rows: Iterable[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """A list of values for each place, for a statement made by `for_many`."""
        listed = list(rows)
        return [[row[name] for row in listed] for name in self.names]


@lru_cache(maxsize=512)
def numbered(sql: str) -> Statement:
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"${places.setdefault(found[1], len(places) + 1)}"

    text = _NAME.sub(place, sql)
    return Statement(text, tuple(places))


def takes_many(sql: str) -> bool:
    """Whether `for_many` can make one statement for many rows of it: an INSERT with values in one place only."""
    found = _INSERT.fullmatch(sql)
    return found is not None and _NAME.search(found["head"] + found["tail"]) is None


def for_many(sql: str, types: Sequence[str]) -> Statement:
    """One INSERT of as many rows as its lists are long; `types` are those of `numbered(sql)`, in order.

    A statement a row costs the server some ten times as much.
    """
    found = _INSERT.fullmatch(sql)
    if found is None:
        raise ValueError("not an INSERT with values")
    names = numbered(sql).names
    lists = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, 1))
    columns = ", ".join(f'"{name}"' for name in names)
    values = _NAME.sub(r'r."\1"', found["values"])
    return Statement(
        f"{found['head']}SELECT {values} FROM unnest({lists}) AS r({columns}){found['tail']}", names
    )
