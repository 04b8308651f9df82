"""Redis is emptied in mid-load, then gone for a minute, then hangs for one: each job still starts within 2 s."""

import time
from datetime import datetime
from typing import Any, Final

import httpx2
from tests.chaos.load import ENDS, PATIENCE
from tests.chaos.matrix import Cell
from tests.chaos.rows.redis import valkey
from tests.chaos.scaled import STACK
from tests.chaos.scene import LIMIT, Scene, lasting
from tests.chaos.trials.trial import Trial

START_WITHIN: Final = 2.0
"""Seconds from submission to start on a pool that has nothing to do."""
EMPTIED: Final = 3
"""Times, each before a job that has to begin so soon."""


def away(scene: Scene) -> None:
    emptied(scene)
    assert scene.until(lambda: scene.open_jobs() == 0, pause=0.1), "the pool has work that nobody does"
    for _ in range(EMPTIED):
        valkey(scene, "FLUSHALL")
        scene.hit("FLUSHALL")
        begins_soon(scene, "Redis was emptied")
    server = scene.server("Redis")
    seconds = lasting(scene, 60.0, short=4.0)
    for fail, recover, kind in (
        (server.kill, server.start, "Redis gone for a minute"),
        (server.pause, server.resume, "Redis hangs for a minute"),
    ):
        fail()
        scene.hit(kind, signalled=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begins_soon(scene, kind)
        recover()


def begins_soon(scene: Scene, kind: str) -> None:
    """A job, by its own times."""
    job = made(scene)
    assert job["status"] == "succeeded", job
    waited = _at(job["started_at"]) - _at(job["queued_at"])
    assert waited <= START_WITHIN, f"{kind}: {job['job_id']} began after {waited:.2f} s"


def emptied(scene: Scene) -> None:
    """FLUSHALL among many submissions."""
    scene.callers.start()
    assert scene.callers.until_acknowledged(6, LIMIT), "no submission is acknowledged"
    for _ in range(2):
        valkey(scene, "FLUSHALL")
        scene.hit("FLUSHALL")
        assert scene.callers.until_acknowledged(6, LIMIT), "no submission is acknowledged after FLUSHALL"
    scene.callers.stop()


def made(scene: Scene) -> dict[str, Any]:
    """A job at its end, submitted to any of the API processes; the proof is told of it."""
    told = scene.callers.told
    key = f"alone-{len(told.sent)}"
    told.sent.add(key)
    door = scene.rng.choice(list(scene.doors.values()))
    with httpx2.Client(base_url=f"http://127.0.0.1:{door.port}", timeout=PATIENCE, trust_env=False) as client:
        body = {"prompt": "a lighthouse", "steps": 2, "width": 64, "height": 64}
        answer = client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        told.jobs[key] = job_id = answer.json()["job_id"]
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            found.append(client.get(f"/api/v1/jobs/{job_id}").json())
            return found[-1]["status"] in ENDS

        assert scene.until(ended, pause=0.05), f"{job_id} does not end"
    told.ends[job_id] = found[-1]["status"]
    return found[-1]


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


TRIAL: Final = Trial("Redis emptied, gone, hanging", "for a minute", 1020, STACK, Cell(away), alone=True)
