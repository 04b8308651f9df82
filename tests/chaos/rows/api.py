"""The API by itself: two processes, each of which any caller may get."""

from typing import Final

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.rows.service import halved, refused, slow
from tests.chaos.scaled import API, STACK
from tests.chaos.scene import Scene
from tests.chaos.ways import killed_at, of

PLACES: Final = ("db.Jobs.cancel", "db.Submissions._insert", "db.parts", "signal.wake", "signal.ask_cancel",
                 "signal.publish", "redis.")  # fmt: skip


def killed(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        scene.kill(scene.one_of(API))
        scene.a_while(0.0, 1.0)
        scene.start()
        scene.go_on(2)
    killed_at(scene, of(*PLACES, shared=True), API)


def stopped(scene: Scene) -> None:
    for seconds in (0.5, 4.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.1, 0.7)
        scene.stop(scene.process(scene.one_of(API)), seconds, "an API process")
        scene.go_on()


def restarted(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        scene.restart(scene.one_of(API))
        scene.go_on()


ROW = Row(
    "API",
    20,
    {
        Column.KILLED: Cell(killed, deaf=True),
        Column.STOPPED: Cell(stopped, deaf=True),
        Column.SLOW: Cell(slow, deaf=True),
        Column.REFUSED: Cell(refused, deaf=True),
        Column.LOST: Senseless("It keeps nothing of its own: see database and store."),
        Column.RESTARTED: Cell(restarted, deaf=True),
        Column.HALVED: Cell(halved, deaf=True),
    },
    STACK,
)
