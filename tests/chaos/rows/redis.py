"""Redis or Valkey: it carries hints, so that whatever becomes of it nobody is told an error."""

import redis
from tests.chaos import outages
from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.scaled import STACK
from tests.chaos.scene import Scene
from tests.chaos.ways import of, told_at

NAME = "Redis"


def refused(scene: Scene) -> None:
    outages.refused(NAME)(scene)
    for _ in range(scene.form.times):
        told_at(scene, of("redis.", shared=True), "raise")


def valkey(scene: Scene, *command: str) -> None:
    """A command on a connection past the lines."""
    with redis.Redis.from_url(scene.server(NAME).url, socket_timeout=5) as client:
        client.execute_command(*command)


def lost(scene: Scene) -> None:
    """All keys are gone; then what is on its way."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        valkey(scene, "FLUSHALL")
        scene.hit("FLUSHALL")
        valkey(scene, "SCRIPT", "FLUSH")
        valkey(scene, "CLIENT", "KILL", "TYPE", "pubsub")
        scene.hit("subscribers cut off")
        scene.go_on(4)
    outages.swallowed(NAME)(scene)


ROW = Row(
    NAME,
    40,
    {
        Column.KILLED: Cell(outages.killed(NAME)),
        Column.STOPPED: Cell(outages.stopped(NAME)),
        Column.SLOW: Cell(outages.slow(NAME)),
        Column.REFUSED: Cell(refused),
        Column.LOST: Cell(lost),
        Column.RESTARTED: Cell(outages.restarted(NAME)),
        Column.HALVED: Cell(outages.halved(NAME)),
    },
    STACK,
)
