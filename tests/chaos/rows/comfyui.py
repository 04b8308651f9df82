"""ComfyUI: two simulated servers, each a process."""

from tests.chaos.matrix import Cell, Column, Row
from tests.chaos.scaled import scaled
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, restart


def killed(scene: Scene) -> None:
    for _ in range(scene.form.times):
        backend = scene.rng.choice(scene.backends)
        scene.a_while(0.2, 1.0)
        backend.kill()
        scene.hit("kill -9 of ComfyUI", signalled=True)
        scene.a_while(0.0, 2.0)
        backend.start()
        scene.go_on()


def stopped(scene: Scene) -> None:
    for seconds in (1.0, 9.0, scene.form.stop_seconds)[-scene.form.times :]:
        scene.a_while(0.2, 1.0)
        scene.stop(scene.rng.choice(scene.backends).process, seconds, "ComfyUI")
        scene.go_on()


def slow(scene: Scene) -> None:
    for _ in range(scene.form.times):
        for backend in scene.backends:
            backend.fault("slow", seconds=2.0)
            scene.hit("ComfyUI answers 2 s late")
        scene.a_while(2.0, 5.0)
        for backend in scene.backends:
            backend.fault("slow", seconds=0.0)
        scene.go_on()


def refused(scene: Scene) -> None:
    """Errors instead of answers, prompts taken without an answer, prompts taken and not run."""
    for _ in range(scene.form.times):
        backend = scene.rng.choice(scene.backends)
        backend.fault("answer_errors", n=3)
        scene.hit("ComfyUI answers 500")
        scene.go_on(2)
        backend.fault("drop_answer_after_accepting", n=2)
        scene.hit("prompt taken without an answer")
        scene.go_on(2)
        backend.fault("accept_and_run_nothing")
        scene.hit("prompts taken and not run")
        scene.a_while(1.0, 3.0)
        backend.fault("accept_and_run_nothing", on=False)
        scene.go_on(2)


def lost(scene: Scene) -> None:
    """History, queue and output files are gone, frames of the socket too."""
    for _ in range(scene.form.times):
        for name, arguments in (
            ("forget_history", {}),
            ("lose_frames", {"count": 20}),
            ("delete_outputs", {}),
            ("forget_queue", {}),
            ("close_sockets", {}),
        ):
            scene.rng.choice(scene.backends).fault(name, **arguments)
            scene.hit(f"ComfyUI: {name}")
            scene.go_on(1)


def restarted(scene: Scene) -> None:
    for _ in range(2 * scene.form.times):
        scene.a_while(0.2, 1.0)
        restart(scene, scene.rng.choice(scene.backends))
        scene.go_on(2)


def halved(scene: Scene) -> None:
    paths = ("", "/view", "/queue", "/history", "/prompt", "/object_info")
    for path in scene.rng.sample(paths, 2 * scene.form.times):
        for backend in scene.backends:
            backend.fault("halve_responses", n=2, path=path)
            scene.hit(f"ComfyUI: half answers{' of ' + path if path else ''}")
        scene.go_on()


ROW = Row(
    "ComfyUI",
    70,
    {
        Column.KILLED: Cell(killed, repeats=True, may_fail=DEATHS),
        Column.STOPPED: Cell(stopped, repeats=True, may_fail=DEATHS),
        Column.SLOW: Cell(slow, repeats=True),
        Column.REFUSED: Cell(refused, repeats=True),
        Column.LOST: Cell(lost, repeats=True, may_fail=DEATHS),
        Column.RESTARTED: Cell(restarted, repeats=True, may_fail=DEATHS),
        Column.HALVED: Cell(halved, repeats=True),
    },
)
SCALED = scaled(ROW)
