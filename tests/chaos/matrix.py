"""The matrix of the campaign: what fails (rows) in which way (columns). Rows are data, one file each in `rows/`."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tests.chaos import rows

from comfy_api_service.domain.errors import Code

if TYPE_CHECKING:
    from tests.chaos.outages import Server
    from tests.chaos.proxy import Line
    from tests.chaos.scene import Scene


class Column(StrEnum):
    """A way to fail; the value is the heading in the table."""

    KILLED = "kill -9"
    STOPPED = "stopped, goes on"
    SLOW = "slow (2 s)"
    REFUSED = "refused"
    LOST = "data lost"
    RESTARTED = "restarted"
    HALVED = "answers cut in half"


@dataclass(frozen=True, slots=True)
class Cell:
    """How a part is made to fail that way, and what may come of it beside success."""

    inject: Callable[["Scene"], None]
    deaf: bool = False
    """The callers' own line suffers: answers may be cut, late or absent, and are asked for again."""
    repeats: bool = False
    """A backend may lose or hide what it did: a prompt may be executed again."""
    may_fail: frozenset[Code] = frozenset()
    """Ends by an error that this fault may rightly give a job; without them each job succeeds."""


@dataclass(frozen=True, slots=True)
class Senseless:
    """A cell that cannot be, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Command:
    """A process of the service: `comfy-api` with these arguments."""

    name: str
    arguments: tuple[str, ...]
    answers: bool
    """Callers speak to it."""
    drives: bool
    """It drives backends."""


class Surroundings(Protocol):
    """The servers that the service's processes share, started."""

    @property
    def servers(self) -> Mapping[str, "Server"]:
        """By name."""
        ...

    @property
    def results(self) -> Path | None:
        """Where files of results are to be found; None: in the data folder."""
        ...

    def environment(self, name: str) -> Mapping[str, str]:
        """The settings by which the process of this name finds them."""
        ...


Surrounded = Callable[[Path, Callable[[], "Line"], Sequence[str]], AbstractContextManager[Surroundings]]
"""Given a folder, what makes lines, and the names of the processes, each of which has lines of its own."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What is started for a run, beside two backends and callers."""

    commands: tuple[Command, ...]
    surrounded: Surrounded | None = None

    @property
    def shared(self) -> bool:
        """Several workers share the backends."""
        return sum(command.drives for command in self.commands) > 1


SINGLE: Final = Stack((Command("the service", ("serve", "--port", "0"), answers=True, drives=True),))
"""Everything in one process, over SQLite and files."""


@dataclass(frozen=True, slots=True)
class Row:
    """A part of the service or around it."""

    name: str
    place: int
    """Order in the table."""
    cells: Mapping[Column, Cell | Senseless]
    stack: Stack = SINGLE

    def __post_init__(self) -> None:
        absent = [column for column in Column if column not in self.cells]
        if absent:
            raise ValueError(f"row {self.name} says nothing of: {', '.join(absent)}")


@cache
def matrix() -> tuple[Row, ...]:
    """Every row: `ROW` of each module in `rows/`, and `SCALED` of those that run on both stacks."""
    modules = [
        importlib.import_module(f"{rows.__name__}.{module.name}")
        for module in pkgutil.iter_modules(rows.__path__)
    ]
    found = [
        getattr(module, name) for module in modules for name in ("ROW", "SCALED") if hasattr(module, name)
    ]
    return tuple(sorted(found, key=lambda row: row.place))


def row_of(name: str) -> Row:
    return next(row for row in matrix() if row.name == name)


def cells() -> dict[tuple[str, Column], Cell]:
    """What is run, by row's name and column."""
    return {
        (row.name, column): cell
        for row in matrix()
        for column in Column
        if isinstance(cell := row.cells[column], Cell)
    }
