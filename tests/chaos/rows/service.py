"""API and worker in one process, `comfy-api serve`; both roles die together."""

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, killed_at, of


def killed(scene: Scene) -> None:
    """At moments that nobody chose, then before and after each call to a backend and each signal."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.5)
        scene.kill(scene.one_of())
        scene.a_while(0.0, 0.6)
        scene.start()
        scene.go_on()
    killed_at(scene, of("comfyui.", "signal."))


def stopped(scene: Scene) -> None:
    for seconds in (0.5, 2.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.1, 0.7)
        scene.stop(scene.process(scene.one_of()), seconds, "the service")
        scene.go_on()


def slow(scene: Scene) -> None:
    for _ in range(scene.form.times):
        for door in scene.doors.values():
            door.slow(2.0)
        scene.hit("answers 2 s late")
        scene.go_on(4)
        for door in scene.doors.values():
            door.slow(0.0)
        scene.go_on(4)


def refused(scene: Scene) -> None:
    for _ in range(scene.form.times):
        door = scene.rng.choice(list(scene.doors.values()))
        door.refuse()
        door.cut()
        scene.hit("callers refused")
        scene.a_while(0.5, 2.0)
        door.heal()
        scene.go_on()


def restarted(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        scene.restart(scene.one_of())
        scene.go_on()


def halved(scene: Scene) -> None:
    doors = scene.doors.values()
    for _ in range(2 * scene.form.times):
        for door in doors:
            door.halve(2)
        if scene.until(lambda: all(door.halves_left() == 0 for door in doors), 5.0):
            scene.hit("answers to callers halved")
        scene.go_on(2)


ROW = Row(
    "API and worker",
    10,
    {
        Column.KILLED: Cell(killed, deaf=True, repeats=True, may_fail=DEATHS),
        Column.STOPPED: Cell(stopped, deaf=True),
        Column.SLOW: Cell(slow, deaf=True),
        Column.REFUSED: Cell(refused, deaf=True),
        Column.LOST: Senseless("It keeps nothing of its own: see the database and the disk."),
        Column.RESTARTED: Cell(restarted, deaf=True),
        Column.HALVED: Cell(halved, deaf=True),
    },
)
