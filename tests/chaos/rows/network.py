"""The network: every byte to ComfyUI goes through lines of the campaign's own, on many machines also those between
each process and the servers that it shares.
"""

from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.proxy import Line
from tests.chaos.scaled import scaled
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, of, told_at


def cut(scene: Scene) -> None:
    """Every open connection is reset at once."""
    for _ in range(2 * scene.form.times):
        scene.a_while(0.2, 1.0)
        for backend in scene.backends:
            backend.line.cut()
        scene.hit("connections cut")
        scene.go_on(2)


def held(scene: Scene) -> None:
    for seconds in (1.0, 4.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.2, 1.0)
        line = scene.rng.choice(scene.backends).line
        line.hold()
        scene.hit("line stands still")
        scene.a_while(seconds, seconds)
        line.heal()
        scene.go_on()


def slow(scene: Scene) -> None:
    for _ in range(scene.form.times):
        for backend in scene.backends:
            backend.line.slow(2.0)
            scene.hit("line 2 s long")
        scene.a_while(4.0, 8.0)
        for backend in scene.backends:
            backend.line.heal()
        scene.go_on()


def refused(scene: Scene) -> None:
    """No new connection; and calls that fail before they are sent or after."""
    for _ in range(scene.form.times):
        for backend in scene.backends:
            backend.line.refuse()
            backend.line.cut()
        scene.hit("backends refuse")
        scene.a_while(0.5, 3.0)
        for backend in scene.backends:
            backend.line.heal()
        scene.go_on()
    told_at(scene, of("comfyui."), "raise")


def swallowed(scene: Scene) -> None:
    for _ in range(scene.form.times):
        line = scene.rng.choice(scene.backends).line
        line.swallow()
        scene.hit("bytes lost on the line")
        scene.a_while(1.0, 4.0)
        line.heal()
        scene.go_on()


def restarted(scene: Scene) -> None:
    """One line after the other is gone for a moment, as when a router starts anew."""
    for _ in range(scene.form.times):
        for backend in scene.backends:
            backend.line.refuse()
            backend.line.cut()
            scene.hit("line gone and back")
            scene.a_while(0.1, 0.5)
            backend.line.heal()
        scene.go_on()


def halved(scene: Scene) -> None:
    lines = [backend.line for backend in scene.backends]
    for _ in range(2 * scene.form.times):
        for line in lines:
            line.halve(2)
        if scene.until(lambda: sum(line.halves_left() for line in lines) == 0, 5.0):
            scene.hit("answers of backends halved")
        scene.go_on(2)


def lines_of(scene: Scene, name: str) -> list[Line]:
    """All lines of a process but those to backends."""
    return [server.lines[name] for server in scene.servers()]


def split(scene: Scene) -> None:
    """A worker is cut off from the servers, and reaches the backends; the other way round is in `held`."""
    for _ in range(2 * scene.form.times):
        scene.a_while(0.2, 1.0)
        for line in lines_of(scene, scene.one_of()):
            line.cut()
        scene.hit("connections of a worker cut")
        scene.go_on(2)
    cut(scene)


def apart(scene: Scene) -> None:
    """A worker's lines stand still but for those to backends: the longest time it is replaced, and knows not."""
    for seconds in (2.0, 14.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.2, 1.0)
        lines = lines_of(scene, scene.one_of())
        for line in lines:
            line.hold()
        scene.hit("a worker apart from the servers")
        scene.a_while(seconds, seconds)
        for line in lines:
            line.heal()
        scene.go_on()
    backend = scene.rng.choice(scene.backends)
    backend.line.hold()
    scene.hit("line stands still")
    scene.a_while(4.0, 4.0)
    backend.line.heal()
    scene.go_on()


def lost_apart(scene: Scene) -> None:
    for _ in range(scene.form.times):
        lines = lines_of(scene, scene.one_of())
        for line in lines:
            line.swallow()
        scene.hit("bytes of a worker lost")
        scene.a_while(1.0, 5.0)
        for line in lines:
            line.heal()
        scene.go_on()
    swallowed(scene)


def far(scene: Scene) -> None:
    """A worker at the other end of the world, from servers and backends alike."""
    for _ in range(scene.form.times):
        lines = [*lines_of(scene, scene.one_of()), *(backend.line for backend in scene.backends)]
        for line in lines:
            line.slow(2.0)
        scene.hit("lines 2 s long")
        scene.a_while(6.0, 9.0)
        for line in lines:
            line.heal()
        scene.go_on()


ROW = Row(
    "network",
    80,
    {
        Column.KILLED: Cell(cut, repeats=True),
        Column.STOPPED: Cell(held, repeats=True, may_fail=DEATHS),
        Column.SLOW: Cell(slow, repeats=True),
        Column.REFUSED: Cell(refused, repeats=True, may_fail=DEATHS),
        Column.LOST: Cell(swallowed, repeats=True),
        Column.RESTARTED: Cell(restarted, repeats=True),
        Column.HALVED: Cell(halved, repeats=True),
    },
)
SCALED = scaled(
    ROW,
    KILLED=Cell(split, repeats=True),
    STOPPED=Cell(apart, repeats=True, may_fail=DEATHS),
    SLOW=Cell(far, repeats=True),
    LOST=Cell(lost_apart, repeats=True),
)
