"""PostgreSQL is away for a minute, hanging first, then refusing: no worker that lives is replaced."""

import json
import time
from functools import partial
from typing import Final

import asyncpg
from tests.chaos.matrix import Cell
from tests.chaos.scaled import STACK, WORKER, driven
from tests.chaos.scene import LIMIT, Scene, lasting
from tests.chaos.trials.trial import Trial
from tests.support.postgres import blocking

from comfy_api_service.domain.leases import DEAD_SECONDS

PROOF: Final = "db.SharedLease._prove.before"
"""Where a worker stands when the database is back: its next proof comes after others have looked for it."""
PROOFS: Final = 3
"""Proofs of life after which whoever would have been taken for dead has been."""
REPLACED: Final = frozenset(
    {"worker_replaced", "worker_dead", "backend_lost", "backend_handed_over", "backend_taken"}
)


def away(scene: Scene) -> None:
    server = scene.server("PostgreSQL")
    seconds = lasting(scene, 60.0, short=DEAD_SECONDS + 3.0)
    scene.callers.start()
    assert scene.callers.until_acknowledged(6, LIMIT), "no submission is acknowledged"
    names = scene.names(drives=True)
    assert scene.until(lambda: all(len(driven(scene.process(name))) == 1 for name in names), pause=0.1)
    before = _workers(server.url)
    said = {name: len(scene.process(name).output) for name in names}
    for hangs in (True, False):
        if hangs:
            server.pause()
        else:
            server.leave()
        time.sleep(seconds)
        assert scene.until(partial(scene.carried_out, scene.arm({PROOF: "slow"}, WORKER))), "nobody proves"
        if hangs:
            server.resume()
        else:
            server.heal()
        scene.hit(
            "PostgreSQL hangs for a minute" if hangs else "PostgreSQL refuses for a minute", signalled=hangs
        )
        counted = _workers(server.url)
        assert scene.until(
            lambda counted=counted: all(  # type: ignore[misc]
                count - counted.get(worker, 0) >= PROOFS for worker, count in _workers(server.url).items()
            ),
            pause=0.5,
        ), "a worker proves its life no more"
        assert scene.callers.until_acknowledged(4, LIMIT), "no submission is acknowledged afterwards"
    scene.callers.stop()
    assert _workers(server.url).keys() == before.keys()
    told = [line for name in names for line in _told(scene.process(name).output[said[name] :])]
    assert not told, "\n".join(told)


def _workers(url: str) -> dict[str, int]:
    """The counters of those who are not known to be gone."""

    async def read() -> dict[str, int]:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch("SELECT id, counter FROM workers WHERE counter >= 0")
            return {row["id"]: row["counter"] for row in rows}
        finally:
            await connection.close()

    return blocking(read)


def _told(output: list[str]) -> list[str]:
    """What a worker says of somebody who is replaced, or of backends that go from one to another."""
    return [line for line in output if line.startswith("{") and json.loads(line).get("event") in REPLACED]


TRIAL: Final = Trial("PostgreSQL away for a minute", "stopped, refused", 1010, STACK, Cell(away))
