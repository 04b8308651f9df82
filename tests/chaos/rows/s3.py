"""The S3 store: while it is away results wait on the workers' disks, and nobody is told an error."""

from tests.chaos import outages
from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.scaled import STACK
from tests.chaos.scene import Scene
from tests.chaos.ways import of, told_at

NAME = "S3"
PLACES = ("store.expect", "store.forget", "store.put")


def slow(scene: Scene) -> None:
    outages.slow(NAME)(scene)
    told_at(scene, of(*PLACES), "slow")


def refused(scene: Scene) -> None:
    outages.refused(NAME)(scene)
    told_at(scene, of(*PLACES), "raise")


ROW = Row(
    NAME,
    65,
    {
        Column.KILLED: Cell(outages.killed(NAME)),
        Column.STOPPED: Cell(outages.stopped(NAME)),
        Column.SLOW: Cell(slow),
        Column.REFUSED: Cell(refused),
        Column.LOST: Cell(outages.swallowed(NAME)),
        Column.RESTARTED: Cell(outages.restarted(NAME)),
        Column.HALVED: Cell(outages.halved(NAME)),
    },
    STACK,
)
