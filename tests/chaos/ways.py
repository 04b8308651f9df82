"""Faults that several rows have in common."""

import time
from typing import Final

from tests.chaos.backend import Backend
from tests.chaos.scene import Scene
from tests.chaos.sites import points

from comfy_api_service.domain.errors import Code

HIT_WITHIN: Final = 6.0
"""Seconds in which a busy service comes by a failpoint, if it ever does."""
DEATHS: Final = frozenset({Code.POISON_JOB, Code.ATTEMPTS_EXHAUSTED})
"""How a job may end that ran on two backends when each died, or that lost three attempts."""
RESTART: Final = "restart of ComfyUI"
"""The fault that loses what a backend had: a prompt is rightly executed again."""
AT_START: Final = ("db.Worker.register", "db.Driver._adopt", "db.Fleet._take", "db.parts")
"""Sites that a service comes by when it starts."""
AFTER_A_RESTART: Final = (
    "db.Reporter.requeue",
    "db.Driver._forget_residency",
    "comfyui.object_info",
    "comfyui.open_socket",
    "comfyui.history",
    "comfyui.queue",
    "store.forget",
)
"""Points that a service comes by when a backend was restarted."""
ON_LEAVING: Final = ("db.Worker._leave", "db.Fleet._leave")
"""Points that a worker comes by when it ends, and one that hands half of the backends over when it is back."""
ON_A_DEATH: Final = ("db.Worker._bury",)
"""Points that a worker comes by when it finds another one dead."""
MISSED_WITHIN: Final = 20.0
"""Seconds in which a worker that is gone is missed, and what it drove is taken over."""
ON_A_CANCEL: Final = ("comfyui.interrupt", "comfyui.delete_pending", "comfyui.cancel", "signal.ask_cancel")
"""Points that it comes by when a job is canceled that a backend has."""
ON_A_CHANGE: Final = ("db.Contact", "signal.pool_changed")
"""Points that it comes by when a backend is away for long enough to be missed."""
AT_A_POINT_SECONDS: Final = 0.8
"""How long a process stands still at a failpoint."""


def of(*prefixes: str, shared: bool = False) -> list[str]:
    """The failpoints whose names begin so; `shared`: also those that only workers beside others come by."""
    return [point for point in points(shared=shared) if point.startswith(prefixes)]


def killed_at(scene: Scene, candidates: list[str], who: str = "") -> None:
    """kill -9 at each failpoint of this run's share, one a life; of a process whose name begins with `who`."""
    for point in scene.share(candidates):
        kill_at(scene, point, who)


def kill_at(scene: Scene, point: str, who: str = "") -> None:
    starts = scene.starts
    if not at(scene, point, "kill", who):
        return
    scene.hit("kill -9 at a failpoint", signalled=True)
    limit = 10.0 if scene.starts == starts else 1.0  # one that was killed as it started was started again
    if scene.until(scene.fallen, limit):
        scene.start()


def stopped_at(scene: Scene, candidates: list[str], who: str = "") -> None:
    """SIGSTOP at each failpoint of the share, SIGCONT a little later."""
    for point in scene.share(while_running(candidates)):
        stop_at(scene, point, who)


def stop_at(scene: Scene, point: str, who: str = "") -> None:
    if at(scene, point, "stop", who):
        time.sleep(AT_A_POINT_SECONDS)
        scene.carry_on()
        scene.hit("stop at a failpoint", signalled=True)


def told_at(scene: Scene, candidates: list[str], action: str, who: str = "") -> None:
    """`raise` or `slow` at each failpoint of the share."""
    for point in scene.share(while_running(candidates)):
        tell_at(scene, point, action, who)


def tell_at(scene: Scene, point: str, action: str, who: str = "") -> None:
    if at(scene, point, action, who):
        scene.hit({"raise": "error at a failpoint", "slow": "2 s at a failpoint"}[action])
        scene.a_while(0.1, 0.3)


def while_running(candidates: list[str]) -> list[str]:
    """Those that a service comes by that is neither started nor ended."""
    return [point for point in candidates if not point.startswith((*AT_START, *ON_LEAVING, *ON_A_DEATH))]


def at(scene: Scene, point: str, action: str, who: str = "") -> bool:
    """Arm a failpoint and make the service come by; False if it did not."""
    # A result that is stored at once spares the write that says it is being stored.
    also = {"store.put.before": "slow"} if point.startswith("db.Reporter.storing") else {}
    orders = scene.arm({point: action, **also}, who)[:1]
    provoke(scene, point, who)

    def come_by() -> bool:
        if point.startswith(ON_A_CANCEL):
            scene.cancel_a_running_one()
        return scene.carried_out(orders)

    limit = MISSED_WITHIN if point.startswith(ON_A_DEATH) else HIT_WITHIN
    if scene.until(come_by, limit, pause=0.1):
        return True
    scene.arm({})
    if scene.carried_out(orders):  # just now
        return True
    scene.missed.append(f"{action} at {point}")
    return False


def provoke(scene: Scene, point: str, who: str = "") -> None:
    """What makes the service do what it does seldom."""
    if point.startswith(AT_START):
        scene.kill(scene.one_of(who))
        scene.start()
    elif point.startswith(ON_LEAVING):
        scene.restart(scene.one_of(who))
    elif point.startswith(ON_A_DEATH):
        scene.kill(scene.one_of(who))
    elif point.startswith(ON_A_CHANGE):
        restart(scene, scene.rng.choice(scene.backends), after=2.0)
    elif point.startswith(AFTER_A_RESTART):
        restart(scene, scene.rng.choice(scene.backends))


def restart(scene: Scene, backend: Backend, after: float = 0.0) -> None:
    """The simulator forgets everything and is back after so many seconds."""
    backend.fault("restart", after=after)
    scene.hit(RESTART)
