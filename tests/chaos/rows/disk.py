"""The disk under database and results: full, slow, torn."""

import resource
from contextlib import suppress
from functools import partial

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, killed_at, of, stopped_at, told_at


def limit(scene: Scene, size: int) -> None:
    """The service can make no file longer than this; what is longer can be changed up to there."""
    _, hard = resource.prlimit(scene.service.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(scene.service.popen.pid, resource.RLIMIT_FSIZE, (size, hard))


def unlimited(scene: Scene) -> None:
    limit(scene, resource.RLIM_INFINITY)


def killed(scene: Scene) -> None:
    killed_at(scene, of("store."))


def stopped(scene: Scene) -> None:
    stopped_at(scene, of("store."))


def slow(scene: Scene) -> None:
    for _ in range(2 * scene.form.times):
        told_at(scene, of("store.put", "store.publish"), "slow")


def full(scene: Scene) -> None:
    """Not a byte more for database and results; and stores that raise."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        limit(scene, 0)
        scene.hit("disk full")
        scene.a_while(1.0, 3.0)
        unlimited(scene)
        scene.go_on(4)
    told_at(scene, of("store."), "raise")


def lost(scene: Scene) -> None:
    """Files that are being written disappear."""
    folder = scene.data / "artifacts" / ".unfinished"
    for _ in range(scene.form.times):
        orders = scene.arm({"store.publish.before": "stop"})
        if scene.until(partial(scene.carried_out, orders), 5.0):
            for path in folder.glob("*"):
                with suppress(FileNotFoundError):
                    path.unlink()
            scene.hit("unfinished file lost")
            scene.carry_on()
        scene.go_on()


def halved(scene: Scene) -> None:
    """Room for half a result: a write is cut in the middle, the next one refused."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        limit(scene, scene.rng.randrange(100, 3000))
        scene.hit("writes cut in half")
        scene.a_while(1.0, 3.0)
        unlimited(scene)
        scene.go_on(4)


ROW = Row(
    "disk",
    90,
    {
        Column.KILLED: Cell(killed, deaf=True, repeats=True, may_fail=DEATHS),
        Column.STOPPED: Cell(stopped, repeats=True, may_fail=DEATHS),
        Column.SLOW: Cell(slow),
        Column.REFUSED: Cell(full, repeats=True, may_fail=DEATHS),
        Column.LOST: Cell(lost),
        Column.RESTARTED: Senseless("It starts anew with its machine: the service restarts with it."),
        Column.HALVED: Cell(halved),
    },
)
