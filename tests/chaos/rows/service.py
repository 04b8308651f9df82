"""API and worker in one process, `comfy-api serve`; both roles die together."""

import signal

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.scene import LIMIT, Scene
from tests.chaos.ways import DEATHS, killed_at, of


def killed(scene: Scene) -> None:
    """At moments that nobody chose, then before and after each call to a backend and each signal."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.5)
        scene.kill()
        scene.a_while(0.0, 0.6)
        scene.start()
        scene.go_on()
    killed_at(scene, of("comfyui.", "signal."))


def stopped(scene: Scene) -> None:
    for seconds in (0.5, 2.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.1, 0.7)
        scene.stop(scene.service, seconds, "the service")
        scene.go_on()


def slow(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.front.slow(2.0)
        scene.hit("answers 2 s late")
        scene.go_on(4)
        scene.front.slow(0.0)
        scene.go_on(4)


def refused(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.front.refuse()
        scene.front.cut()
        scene.hit("callers refused")
        scene.a_while(0.5, 2.0)
        scene.front.heal()
        scene.go_on()


def restarted(scene: Scene) -> None:
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        scene.service.popen.send_signal(signal.SIGTERM)
        assert scene.service.popen.wait(LIMIT) == 0, "a drain ends with 0"
        scene.hit("SIGTERM to the service", signalled=True)
        scene.start()
        scene.go_on()


def halved(scene: Scene) -> None:
    for _ in range(2 * scene.form.times):
        scene.front.halve(2)
        if scene.until(lambda: scene.front.halves_left() == 0, 5.0):
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
