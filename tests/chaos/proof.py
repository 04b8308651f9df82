"""The judgement over a run: what callers were told, what rows, files and backends say, held against each other."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from tests.chaos.load import Told
from tests.chaos.matrix import Cell
from tests.chaos.scene import Scene
from tests.chaos.ways import DEATHS, RESTART
from tests.support.checker import Fault, Kind, faults, opened

from comfy_api_service.domain.errors import Code


def judge(scene: Scene, cell: Cell) -> list[Fault]:
    """Every fault; the service has ended."""
    if scene.faults[RESTART]:  # some failpoints are come by only then
        cell = replace(cell, repeats=True, may_fail=cell.may_fail | DEATHS)
    told = scene.callers.told
    found = faults(scene.data, told.jobs.values(), artifacts=scene.results)
    with closing(opened(scene.data)) as db:
        found += _keys(db, told)
        found += _ends(db, told, cell)
        found += _runs(db, [record for backend in scene.backends for record in backend.records()], cell)
    found += [Fault(Kind.WRONG, text) for text in told.wrong]
    if not cell.deaf:
        found += [Fault(Kind.WRONG, f"no answer: {text}") for text in told.deaf]
    return found


def jobs_of(scene: Scene) -> int:
    with closing(opened(scene.data)) as db:
        count: int = db.execute("SELECT count(*) FROM jobs").fetchone()[0]
        return count


def _keys(db: sqlite3.Connection, told: Told) -> Iterator[Fault]:
    """A wish is one job, however often it was sent."""
    made = {row["key"]: row["job_id"] for row in db.execute("SELECT key, job_id FROM idempotency_keys")}
    for key, job_id in told.jobs.items():
        if made.get(key) != job_id:
            yield Fault(Kind.LOST, f"{key} was acknowledged as {job_id}, its row says {made.get(key)}")
    rows = {row["id"] for row in db.execute("SELECT id FROM jobs")}
    for job_id in sorted(rows - set(made.values())):
        yield Fault(Kind.DOUBLED, f"{job_id} was made beside the job of its key")
    for key in sorted(made.keys() - told.sent):
        yield Fault(Kind.WRONG, f"{key} was never sent")


def _ends(db: sqlite3.Connection, told: Told, cell: Cell) -> Iterator[Fault]:
    """The end that was seen is the end; none that nobody asked for or that this fault does not excuse."""
    for job in db.execute(
        "SELECT id, state, cancel_requested_at, json_extract(error, '$.code') AS code FROM jobs"
    ):
        seen = told.ends.get(job["id"])
        if seen is not None and seen != job["state"]:
            yield Fault(Kind.DOUBLED, f"{job['id']} was seen {seen} and is {job['state']}")
        if job["state"] == "canceled" and job["id"] not in told.cancels:
            yield Fault(Kind.WRONG, f"{job['id']} was canceled by nobody")
        if job["state"] == "failed" and Code(job["code"]) not in cell.may_fail:
            yield Fault(Kind.LOST, f"{job['id']} failed: {job['code']}")


def _runs(db: sqlite3.Connection, records: list[dict[str, Any]], cell: Cell) -> Iterator[Fault]:
    """What backends did was asked for by an attempt, once; no work is repeated that was not lost."""
    job_of = {row["prompt_id"]: row["job_id"] for row in db.execute("SELECT prompt_id, job_id FROM attempts")}
    runs: Counter[str] = Counter()
    for record in records:
        for prompt_id, times in record["accepted"].items():
            if prompt_id not in job_of:
                yield Fault(Kind.WRONG, f"prompt {prompt_id} belongs to no attempt")
            if times > 1:
                yield Fault(
                    Kind.DOUBLED, f"prompt {prompt_id} of {job_of.get(prompt_id)} was sent {times} times"
                )
        for prompt_id, executions in record["prompts"].items():
            runs[job_of.get(prompt_id, "")] += len(executions)
    if not cell.repeats:
        for job_id, times in runs.items():
            if times > 1:
                yield Fault(Kind.DOUBLED, f"{job_id} was executed {times} times")
