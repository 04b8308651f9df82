"""Forty accounts, four workers, four backends, two API processes: any of these is killed at any moment."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import ClassVar, Final

import asyncpg
from tests.chaos.matrix import Cell, Command, Stack
from tests.chaos.scaled import API, STACK, WORKER
from tests.chaos.scene import LIMIT, Scene, lasting
from tests.chaos.trials.crowd import ACCOUNTS, Crowd, enter
from tests.chaos.trials.trial import Trial
from tests.support.postgres import blocking

from comfy_api_service.domain.leases import DEAD_SECONDS

WORKERS: Final = 4
BACKENDS: Final = 4
DOWN_SECONDS: Final = (0.0, 1.0, 4.0, DEAD_SECONDS + 3.0)
"""How long who was killed stays away at most; after the last, others have taken over."""


class Storm(Scene):
    """With more backends, and with processes that ask who calls."""

    backends_started = BACKENDS
    settings: ClassVar[Mapping[str, str]] = {"AUTH_ENABLED": "true", "RATE_LIMIT_ENABLED": "false"}

    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        enter(self.server("PostgreSQL").url)
        self.callers = Crowd([f"http://127.0.0.1:{door.port}" for door in self.doors.values()], self.seed)

    def open_jobs(self) -> int:
        """Of all accounts: no caller may ask for those of others."""

        async def count() -> int:
            connection = await asyncpg.connect(self.server("PostgreSQL").url)
            try:
                found: int = await connection.fetchval(
                    "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'canceled')"
                )
                return found
            finally:
                await connection.close()

        return blocking(count)

    def crowd(self) -> Crowd:
        assert isinstance(self.callers, Crowd)
        return self.callers


def rages(scene: Scene) -> None:
    """Kill one or two of the processes, for a moment or until they are missed, again and again; twice at least."""
    assert isinstance(scene, Storm)
    seconds = lasting(scene, 300.0, short=8.0)
    crowd = scene.crowd()
    crowd.start()
    assert crowd.until_acknowledged(10, LIMIT), "no submission is acknowledged"
    end = time.monotonic() + seconds
    while time.monotonic() < end or scene.signals < 2:
        scene.a_while(0.5, 4.0)
        for name in scene.rng.sample(scene.names(), scene.rng.choice((1, 1, 2))):
            scene.kill(name)
        down = scene.rng.choice(DOWN_SECONDS)
        scene.a_while(0.0, min(down, seconds / 4))
        scene.start()
    scene.heal()
    assert scene.until(lambda: crowd.accounts() == set(ACCOUNTS), LIMIT), "some account has no job"
    crowd.stop()


TRIAL: Final = Trial(
    "40 accounts, 4 workers",
    "random kill -9",
    1000,
    Stack(
        (
            *(Command(f"{API} {n}", ("api", "--port", "0"), answers=True, drives=False) for n in (1, 2)),
            *(
                Command(f"{WORKER} {n}", ("worker",), answers=False, drives=True)
                for n in range(1, WORKERS + 1)
            ),
        ),
        STACK.surrounded,
    ),
    Cell(rages, deaf=True),
    scene=Storm,
)
