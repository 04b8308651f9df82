"""The worker by itself: two, each of which goes on where the other one ended."""

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.rows import api
from tests.chaos.scaled import STACK, WORKER, driven
from tests.chaos.scene import BACKENDS, Scene, lasting
from tests.chaos.ways import (
    AFTER_A_RESTART,
    DEATHS,
    MISSED_WITHIN,
    ON_A_CHANGE,
    killed_at,
    of,
    tell_at,
    while_running,
)
from tests.support.files import files_below
from tests.support.processes import Process

from comfy_api_service.domain.leases import DEAD_SECONDS

LONGEST_STOP: Final = 60.0


def busy(scene: Scene) -> str:
    """The name of a worker that drives something."""
    return max(
        scene.names(drives=True), key=lambda name: (len(driven(scene.process(name))), scene.rng.random())
    )


def other(scene: Scene, name: str) -> str:
    return next(one for one in scene.names(drives=True) if one != name)


def taken_over(scene: Scene, name: str) -> None:
    """Wait until this worker drives everything."""
    process = scene.process(name)
    assert scene.until(lambda: len(driven(process)) == BACKENDS, MISSED_WITHIN), "nobody takes over"


def places() -> list[str]:
    """The failpoints that a worker comes by."""
    only_api = tuple(place for place in api.PLACES if place not in {"signal.publish", "redis.", "db.parts"})
    return [
        point for point in of("comfyui.", "db.", "signal.", "store.", "redis.", shared=True)
        if not point.startswith((*only_api, "store.publish"))
    ]  # fmt: skip


def killed(scene: Scene) -> None:
    """A new one begins at once, or the other one takes over; then at the failpoints."""
    for turn in range(scene.form.times):
        scene.a_while(0.2, 1.0)
        name = busy(scene)
        scene.kill(name)
        if turn % 2:
            taken_over(scene, other(scene, name))
        scene.start()
        scene.go_on()
    killed_at(scene, places(), WORKER)


def stopped(scene: Scene) -> None:
    """For less and for more than it takes to be replaced, and for so long that all has gone on without it."""
    longest = lasting(scene, LONGEST_STOP, short=scene.form.stop_seconds)
    for seconds in (3.0, DEAD_SECONDS + 4.0, longest)[-scene.form.times :]:
        scene.a_while(0.2, 1.0)
        name = busy(scene)
        scene.stop(scene.process(name), seconds, "a worker")
        if seconds > DEAD_SECONDS:
            found = scene.until(partial(_replaced, scene.process(name)), MISSED_WITHIN)
            assert found, "it was not replaced"
        scene.go_on()


def slow(scene: Scene) -> None:
    """2 s in a place; in the middle of a transaction its whole loop stands still. Backends stay as they are."""
    usual = [
        point for point in while_running(places()) if not point.startswith((*AFTER_A_RESTART, *ON_A_CHANGE))
    ]
    for _ in range(scene.form.times):
        for point in scene.rng.sample(usual, 3):
            tell_at(scene, point, "slow", WORKER)


def lost(scene: Scene) -> None:
    """Its machine is gone, with the results that waited there for the store."""
    store = scene.server("S3")
    for _ in range(scene.form.times):
        store.leave()
        name = busy(scene)
        scene.until(partial(_parked, scene.folder_of(name)), MISSED_WITHIN)
        scene.kill(name)
        shutil.rmtree(scene.folder_of(name))
        scene.hit("disk of a worker lost")
        time.sleep(1.0)
        store.heal()
        scene.start()
        scene.go_on()


def _replaced(process: Process) -> bool:
    return any("worker_replaced" in line for line in tuple(process.output))


def _parked(folder: Path) -> bool:
    """Whether a result waits there for the store."""
    return any(path.name == "parcel.json" for path in files_below(folder / "parked" / "jobs"))


def restarted(scene: Scene) -> None:
    for _ in range(scene.form.times):
        for name in scene.names(drives=True):
            scene.a_while(0.2, 1.0)
            scene.restart(name)
            scene.go_on()


ROW = Row(
    "worker",
    30,
    {
        Column.KILLED: Cell(killed, repeats=True, may_fail=DEATHS),
        Column.STOPPED: Cell(stopped),
        Column.SLOW: Cell(slow),
        Column.REFUSED: Senseless("Nobody calls it: it calls others (see network)."),
        Column.LOST: Cell(lost, repeats=True),
        Column.RESTARTED: Cell(restarted),
        Column.HALVED: Senseless("It answers nobody."),
    },
    STACK,
)
