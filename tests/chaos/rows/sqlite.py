"""SQLite: the file, its log, and the thread that writes."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.chaos.matrix import Cell, Column, Row, Senseless
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, killed_at, of, stopped_at, told_at

LOCKED_SECONDS: Final = 6.5
"""Longer than the service waits for a lock."""


def database(scene: Scene) -> Path:
    return scene.data / "comfy-api.sqlite3"


def killed(scene: Scene) -> None:
    """Before, inside and after each transaction there is."""
    killed_at(scene, of("db."))


def stopped(scene: Scene) -> None:
    stopped_at(scene, of("db."))


def slow(scene: Scene) -> None:
    """Each transaction, once, takes 2 s longer, on the one thread that writes."""
    told_at(scene, [point for point in of("db.") if point.endswith("inside")], "slow")


def refused(scene: Scene) -> None:
    """Another process holds the lock for longer than anybody waits; and errors in each transaction."""
    for _ in range(scene.form.times):
        with closing(sqlite3.connect(database(scene), isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout=10000")
            other.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_SECONDS)
            other.execute("ROLLBACK")
        scene.hit("lock held by another process")
        scene.go_on(4)
    told_at(scene, [point for point in of("db.") if not point.endswith("after")], "raise")


def lost(scene: Scene) -> None:
    """kill -9, and what SQLite keeps for the living alone is gone: the index of the log."""
    for _ in range(scene.form.times):
        scene.a_while(0.3, 1.0)
        scene.kill(scene.one_of())
        Path(f"{database(scene)}-shm").unlink(missing_ok=True)
        scene.hit("index of the log lost")
        scene.start()
        scene.go_on()


def halved(scene: Scene) -> None:
    """kill -9, and half of a frame at the end of the log, as after a power cut in the middle of a write."""
    for _ in range(scene.form.times):
        scene.a_while(0.3, 1.0)
        scene.kill(scene.one_of())
        with Path(f"{database(scene)}-wal").open("ab") as log:
            log.write(scene.rng.randbytes(2000))
            log.flush()
            os.fsync(log.fileno())
        scene.hit("half a frame in the log")
        scene.start()
        scene.go_on()


ROW = Row(
    "SQLite",
    50,
    {
        Column.KILLED: Cell(killed, deaf=True, repeats=True, may_fail=DEATHS),
        Column.STOPPED: Cell(stopped, repeats=True, may_fail=DEATHS),
        Column.SLOW: Cell(slow, repeats=True, may_fail=DEATHS),
        Column.REFUSED: Cell(refused, repeats=True, may_fail=DEATHS),
        Column.LOST: Cell(lost, deaf=True),
        Column.RESTARTED: Senseless("It lives in the process of the service and restarts with it."),
        Column.HALVED: Cell(halved, deaf=True),
    },
)
