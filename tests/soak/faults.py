"""What is done to the service, one a turn. Processes named here as victims die; the others live through the whole."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.chaos.rows.redis import valkey
from tests.chaos.scaled import API, WORKER
from tests.chaos.scene import Scene

VICTIMS: Final = (f"{API} 2", f"{WORKER} 2")
LIVING: Final = (f"{API} 1", f"{WORKER} 1")
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    inject: Callable[[Scene], None]
    ends_lives: bool = False
    """Of a process whose memory is judged; not done once it is."""


def _killed(name: str) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        scene.kill(name)
        scene.a_while(0.0, 5.0)
        scene.start()

    return inject


def _ended(name: str) -> Callable[[Scene], None]:
    return lambda scene: scene.restart(name)


def _stopped(name: str, whose: str, seconds: float = STOP_SECONDS) -> Callable[[Scene], None]:
    return lambda scene: scene.stop(scene.process(name), seconds, whose)


def _comfyui_killed(scene: Scene) -> None:
    backend = scene.rng.choice(scene.backends)
    backend.kill()
    scene.a_while(0.5, 12.0)
    backend.start()
    scene.hit("ComfyUI killed and started again", signalled=True)


def _comfyui_cut(scene: Scene) -> None:
    line = scene.rng.choice(scene.backends).line
    line.refuse()
    line.cut()
    scene.a_while(0.5, 8.0)
    line.heal()
    scene.hit("ComfyUI cut off")


def _callers_cut(scene: Scene) -> None:
    for door in scene.doors.values():
        door.refuse()
        door.cut()
    scene.a_while(0.5, 4.0)
    for door in scene.doors.values():
        door.heal()
    scene.hit("callers cut off")


def _flushed(scene: Scene) -> None:
    valkey(scene, "FLUSHALL")
    scene.hit("Redis flushed")


def _server_ended(name: str) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        scene.server(name).end()
        scene.a_while(0.0, 3.0)
        scene.server(name).start()
        scene.hit(f"{name} restarted", signalled=True)

    return inject


def _server_killed(name: str) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        scene.server(name).kill()
        scene.a_while(0.3, 3.0)
        scene.server(name).start()
        scene.hit(f"kill -9 of {name}", signalled=True)

    return inject


def _server_away(name: str, seconds: float) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        scene.server(name).leave()
        time.sleep(seconds)
        scene.server(name).heal()
        scene.hit(f"{name} away")

    return inject


def _server_away_for_one(name: str) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        line = scene.rng.choice(list(scene.server(name).lines.values()))
        line.refuse()
        line.cut()
        scene.a_while(1.0, 6.0)
        line.heal()
        scene.hit(f"{name} away for one process")

    return inject


SCALED: Final = (
    Fault("kill -9 of an API process", _killed(VICTIMS[0])),
    Fault("API process stopped for 10 s", _stopped(LIVING[0], "an API process")),
    Fault("ComfyUI killed and started again", _comfyui_killed),
    Fault("Redis flushed", _flushed),
    Fault("kill -9 of a worker", _killed(VICTIMS[1])),
    Fault("PostgreSQL restarted", _server_ended("PostgreSQL")),
    Fault("S3 away for 15 s", _server_away("S3", 15.0)),
    Fault("callers cut off", _callers_cut),
    Fault("worker stopped for 14 s, and replaced", _stopped(LIVING[1], "a worker", 14.0)),
    Fault("Redis restarted", _server_ended("Redis")),
    Fault("kill -9 of PostgreSQL", _server_killed("PostgreSQL")),
    Fault("SIGTERM to a worker, started again", _ended(VICTIMS[1])),
    Fault("ComfyUI cut off", _comfyui_cut),
    Fault("PostgreSQL away for one process", _server_away_for_one("PostgreSQL")),
    Fault("worker stopped for 10 s", _stopped(LIVING[1], "a worker")),
    Fault("SIGTERM to an API process, started again", _ended(VICTIMS[0])),
    Fault("kill -9 of S3", _server_killed("S3")),
)
_SERVICE: Final = "the service"
SINGLE: Final = (
    Fault("kill -9 of the service", _killed(_SERVICE), ends_lives=True),
    Fault("the service stopped for 10 s", _stopped(_SERVICE, "the service")),
    Fault("ComfyUI killed and started again", _comfyui_killed),
    Fault("callers cut off", _callers_cut),
    Fault("ComfyUI cut off", _comfyui_cut),
    Fault("SIGTERM to the service, started again", _ended(_SERVICE), ends_lives=True),
)
