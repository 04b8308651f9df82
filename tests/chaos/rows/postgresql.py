"""PostgreSQL: the server, one of its processes, what it keeps, and the way to it."""

from tests.chaos import outages
from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.scaled import STACK
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, of, told_at

NAME = "PostgreSQL"


def refused(scene: Scene) -> None:
    outages.refused(NAME)(scene)
    told_at(scene, [point for point in of("db.", shared=True) if not point.endswith("after")], "raise")


def slow(scene: Scene) -> None:
    outages.slow(NAME)(scene)
    told_at(scene, [point for point in of("db.", shared=True) if point.endswith("inside")], "slow")


ROW = Row(
    NAME,
    45,
    {
        Column.KILLED: Cell(outages.killed(NAME)),
        Column.STOPPED: Cell(outages.stopped(NAME)),
        Column.SLOW: Cell(slow, repeats=True, may_fail=DEATHS),
        Column.REFUSED: Cell(refused, repeats=True, may_fail=DEATHS),
        Column.LOST: Cell(outages.swallowed(NAME)),
        Column.RESTARTED: Cell(outages.restarted(NAME)),
        Column.HALVED: Cell(outages.halved(NAME)),
    },
    STACK,
)
