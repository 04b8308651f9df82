"""The disk under database and results, or where results wait for the store: full, slow, torn."""

import resource
from contextlib import suppress
from functools import partial

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.outages import Inject
from tests.chaos.scaled import scaled
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, kill_at, killed_at, of, stop_at, stopped_at, tell_at, told_at


def limit(scene: Scene, size: int) -> None:
    """The service can make no file longer than this; what is longer can be changed up to there."""
    for name in scene.names(drives=True):
        process = scene.process(name).popen
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))


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
    for _ in range(scene.form.times):
        orders = scene.arm({"store.publish.before": "stop"})
        if scene.until(partial(scene.carried_out, orders), 5.0):
            lose_unfinished(scene)
        scene.go_on()


def lose_unfinished(scene: Scene) -> None:
    """While the process stands still that writes them."""
    where = "parked" if scene.shared else "artifacts"
    for name in scene.names(drives=True):
        for path in (scene.folder_of(name) / where / ".unfinished").glob("*"):
            with suppress(FileNotFoundError):
                path.unlink()
    scene.hit("unfinished file lost")
    scene.carry_on()


def halved(scene: Scene) -> None:
    """Room for half a result: a write is cut in the middle, the next one refused."""
    for _ in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        limit(scene, scene.rng.randrange(100, 3000))
        scene.hit("writes cut in half")
        scene.a_while(1.0, 3.0)
        unlimited(scene)
        scene.go_on(4)


def parking(inject: Inject) -> Inject:
    """Each time the store is away, for some seconds: results are written to the workers' disks."""

    def injected(scene: Scene) -> None:
        for _ in range(scene.form.times):
            scene.server("S3").leave()
            inject(scene)
            scene.server("S3").heal()
            scene.go_on(4)

    return injected


def a_place(scene: Scene) -> str:
    """A failpoint that who parks comes by."""
    return scene.rng.choice(of("store.put", "store.publish"))


def once_full(scene: Scene) -> None:
    """What cannot be parked stays with the backend."""
    scene.a_while(0.5, 1.0)
    limit(scene, 0)
    scene.hit("disk full")
    scene.a_while(1.0, 3.0)
    unlimited(scene)
    tell_at(scene, a_place(scene), "raise")


def once_lost(scene: Scene) -> None:
    orders = scene.arm({"store.publish.before": "stop"})
    if scene.until(partial(scene.carried_out, orders), 5.0):
        lose_unfinished(scene)


def once_halved(scene: Scene) -> None:
    scene.a_while(0.5, 1.0)
    limit(scene, scene.rng.randrange(100, 3000))
    scene.hit("writes cut in half")
    scene.a_while(1.0, 3.0)
    unlimited(scene)


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
SCALED = scaled(
    ROW,
    KILLED=Cell(parking(lambda scene: kill_at(scene, a_place(scene))), repeats=True, may_fail=DEATHS),
    STOPPED=Cell(parking(lambda scene: stop_at(scene, a_place(scene)))),
    SLOW=Cell(parking(lambda scene: tell_at(scene, a_place(scene), "slow"))),
    REFUSED=Cell(parking(once_full), repeats=True),
    LOST=Cell(parking(once_lost)),
    HALVED=Cell(parking(once_halved)),
)
