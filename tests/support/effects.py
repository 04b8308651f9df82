"""More of what the history checker asks: the order of events, what was charged, whose files there are."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

LETTERS = {"queued": "q", "running": "r", "requeued": "b", "artifact": "a", "done": "d"}
STORY = re.compile(r"q(?:r?b)*r?(?:a*d)?")
"""Queued once; begun at most once a stay on a backend; results only with the end; nothing after it."""


def stories(db: sqlite3.Connection) -> Iterator[str]:
    """One event and one outbox entry a transition, each in its place."""
    for job in db.execute("SELECT id, executed FROM jobs"):
        types = [
            row["type"]
            for row in db.execute("SELECT type FROM events WHERE job_id = ? ORDER BY seq", (job["id"],))
        ]
        if not STORY.fullmatch("".join(LETTERS.get(one, "?") for one in types)):
            yield f"{job['id']} has the events {types}"
        if types.count("running") != job["executed"]:
            yield f"{job['id']} was begun {job['executed']} times, by its events {types.count('running')}"
    for row in db.execute(
        """SELECT o.job_id, o.seq, o.type, e.type AS told FROM outbox o
           LEFT JOIN events e ON e.job_id = o.job_id AND e.seq = o.seq WHERE e.type IS NOT o.type"""
    ):
        yield f"{row['job_id']}: outbox entry {row['seq']} is {row['type']}, the event {row['told']}"


def charges(db: sqlite3.Connection) -> Iterator[str]:
    """Nothing for what never ran; never more than was reserved; no line without a job."""
    for row in db.execute(
        """SELECT l.job_id, l.reserved, l.charged, j.state, j.executed
           FROM ledger l LEFT JOIN jobs j ON j.id = l.job_id WHERE l.settled_at IS NOT NULL"""
    ):
        if row["state"] is None:
            yield f"{row['job_id']} was charged and has no row"
        elif row["state"] == "canceled" and not row["executed"] and row["charged"]:
            yield f"{row['job_id']} was canceled before it ran and was charged {row['charged']}"
        elif row["charged"] > row["reserved"]:
            yield f"{row['job_id']} was charged {row['charged']}, reserved were {row['reserved']}"


def sets(db: sqlite3.Connection, store: Path) -> Iterator[str]:
    """One set of results: numbered without gaps, under the keys of the attempt that won, nothing else there."""
    named: dict[str, set[str]] = {}
    for row in db.execute("SELECT job_id, idx, attempt, key FROM artifacts ORDER BY job_id, idx"):
        mine = named.setdefault(row["job_id"], set())
        if row["idx"] != len(mine):
            yield f"{row['job_id']} has result {row['idx']} in place {len(mine)}"
        if not row["key"].startswith(f"jobs/{row['job_id']}/{row['attempt']}/"):
            yield f"{row['job_id']}: {row['key']} is no key of attempt {row['attempt']}"
        mine.add(row["key"])
    for job in db.execute("SELECT id, attempt FROM jobs WHERE state = 'succeeded' AND purged_at IS NULL"):
        folder = store / "jobs" / job["id"] / str(job["attempt"])
        there = {str(path.relative_to(store)) for path in folder.glob("*")}
        for key in sorted(there - named.get(job["id"], set())):
            yield f"{job['id']}: {key} is stored beside its results"
