"""The wall clock of a machine of the service, or of all of them, which anybody may set."""

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.scaled import scaled
from tests.chaos.scene import Scene

HOUR = 3600.0


def set_to(scene: Scene, offset: float, rate: float = 1.0) -> None:
    right = (offset, rate) == (0.0, 1.0)
    scene.set_clocks(
        offset=offset, rate=rate, name=None if right else scene.rng.choice([*scene.names(), None])
    )
    scene.hit("clock set" if rate == 1.0 else f"clock runs at {rate:g}")


def killed(scene: Scene) -> None:
    """The clock is another one when the service is back."""
    for offset in (-HOUR, HOUR, 0.0)[: scene.form.times]:
        scene.a_while(0.2, 1.0)
        scene.kill(scene.one_of())
        set_to(scene, offset)
        scene.start()
        scene.go_on()


def stopped(scene: Scene) -> None:
    """It stands still, then jumps to where it should be."""
    for seconds in (1.0, 5.0, scene.form.stop_seconds)[-scene.form.times :]:
        set_to(scene, 0.0, 0.0)
        scene.a_while(seconds, seconds)
        set_to(scene, 0.0)
        scene.go_on()


def slow(scene: Scene) -> None:
    """2 s late, and at half and double speed."""
    for offset, rate in ((-2.0, 1.0), (0.0, 0.5), (0.0, 2.0)) * scene.form.times:
        set_to(scene, offset, rate)
        scene.go_on()


def lost(scene: Scene) -> None:
    """It falls back by most of a day, as one whose battery is empty, until somebody sets it."""
    for _ in range(scene.form.times):
        set_to(scene, -20 * HOUR)
        scene.go_on(4)
        set_to(scene, 0.0)
        scene.go_on()


def stepped(scene: Scene) -> None:
    """An hour back, an hour forth, in mid-work."""
    for offset in (-HOUR, HOUR, 0.0) * scene.form.times:
        set_to(scene, offset)
        scene.go_on(2)


ROW = Row(
    "clock",
    100,
    {
        Column.KILLED: Cell(killed, deaf=True),
        Column.STOPPED: Cell(stopped),
        Column.SLOW: Cell(slow),
        Column.REFUSED: Senseless("A clock that is asked answers."),
        Column.LOST: Cell(lost),
        Column.RESTARTED: Cell(stepped),
        Column.HALVED: Senseless("Its answer is one number."),
    },
)
SCALED = scaled(ROW)
