"""Servers that the service's processes share, and how they fail, whichever it is."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.chaos.proxy import Line

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

Inject = Callable[["Scene"], None]
BACK_WITHIN: Final = (0.3, 3.0)
"""Seconds that a server is away when it was killed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as a process, and the lines to it."""

    name: str
    url: str
    """Where it is, past the lines."""
    lines: Mapping[str, Line]
    """By the name of the process that uses it."""
    kill: Callable[[], None]
    start: Callable[[], None]
    """Also again, at the same place."""
    pause: Callable[[], None]
    resume: Callable[[], None]
    end: Callable[[], None]
    """As its operator would end it."""

    def heal(self) -> None:
        for line in self.lines.values():
            line.heal()

    def leave(self) -> None:
        """Nobody reaches it, and who did is cut off."""
        for line in self.lines.values():
            line.refuse()
            line.cut()


def killed(name: str) -> Inject:
    def inject(scene: "Scene") -> None:
        server = scene.server(name)
        for _ in range(scene.form.times):
            scene.a_while(0.2, 1.0)
            server.kill()
            scene.hit(f"kill -9 of {name}", signalled=True)
            scene.a_while(*BACK_WITHIN)
            server.start()
            scene.go_on(4)

    return inject


def stopped(name: str) -> Inject:
    def inject(scene: "Scene") -> None:
        server = scene.server(name)
        for seconds in (1.0, 4.0, scene.form.stop_seconds)[-scene.form.times :]:
            scene.a_while(0.2, 1.0)
            server.pause()
            time.sleep(seconds)
            server.resume()
            scene.hit(f"stop of {name}", signalled=True)
            scene.go_on(4)

    return inject


def slow(name: str) -> Inject:
    def inject(scene: "Scene") -> None:
        server = scene.server(name)
        for _ in range(scene.form.times):
            for line in server.lines.values():
                line.slow(2.0)
            scene.hit(f"{name} answers 2 s late")
            scene.a_while(5.0, 8.0)
            server.heal()
            scene.go_on(4)

    return inject


def refused(name: str) -> Inject:
    """For all, then for one process alone."""

    def inject(scene: "Scene") -> None:
        server = scene.server(name)
        for _ in range(scene.form.times):
            server.leave()
            scene.hit(f"{name} refuses")
            scene.a_while(0.5, 4.0)
            server.heal()
            scene.go_on(4)
            line = scene.rng.choice(list(server.lines.values()))
            line.refuse()
            line.cut()
            scene.hit(f"{name} refuses one process")
            scene.a_while(0.5, 4.0)
            line.heal()
            scene.go_on(4)

    return inject


def swallowed(name: str) -> Inject:
    """What is on its way to one process, or from it, is lost, and connections stay."""

    def inject(scene: "Scene") -> None:
        for _ in range(scene.form.times):
            line = scene.rng.choice(list(scene.server(name).lines.values()))
            line.swallow()
            scene.hit(f"bytes lost between one process and {name}")
            scene.a_while(1.0, 5.0)
            line.heal()
            scene.go_on(4)

    return inject


def restarted(name: str) -> Inject:
    def inject(scene: "Scene") -> None:
        server = scene.server(name)
        for _ in range(scene.form.times):
            scene.a_while(0.2, 1.0)
            server.end()
            server.start()
            scene.hit(f"restart of {name}", signalled=True)
            scene.go_on(4)

    return inject


def halved(name: str) -> Inject:
    def inject(scene: "Scene") -> None:
        lines = scene.server(name).lines.values()
        for _ in range(2 * scene.form.times):
            for line in lines:
                line.halve(1)
            if scene.until(lambda: any(line.halves_left() == 0 for line in lines), 5.0):
                scene.hit(f"answers of {name} halved")
            scene.go_on(3)

    return inject
