"""The history checker: from the database alone it proves that nothing was lost, done twice or miscounted."""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import asyncpg
from tests.support import effects
from tests.support.postgres import blocking
from tests.support.schema import NAME, url_of

from comfy_api_service.db.tables import metadata

TERMINAL = ("succeeded", "failed", "canceled")


class Kind(StrEnum):
    LOST = "lost"
    DOUBLED = "doubled"
    STUCK = "stuck"
    WRONG = "wrong"


class Fault(NamedTuple):
    """Something that must not be."""

    kind: Kind
    text: str


def check(
    folder: Path,
    acknowledged: Iterable[str] = (),
    *,
    all_ended: bool = True,
    artifacts: Path | None = None,
) -> None:
    """Raise AssertionError with every fault found; `acknowledged` are the ids of jobs that got a 2xx.

    `artifacts`: where the files of results are, if not in `folder`.
    """
    found = [fault.text for fault in faults(folder, acknowledged, all_ended=all_ended, artifacts=artifacts)]
    assert not found, "\n".join(found)


def faults(
    folder: Path,
    acknowledged: Iterable[str] = (),
    *,
    all_ended: bool = True,
    artifacts: Path | None = None,
) -> list[Fault]:
    """As `check`, told apart."""
    files = artifacts or folder / "artifacts"
    with closing(opened(folder)) as db:
        found = {
            Kind.LOST: [*_lost(db, acknowledged), *_artifacts(db, files)],
            Kind.DOUBLED: [
                *_events(db),
                *effects.stories(db),
                *_attempts(db),
                *_ledger(db),
                *effects.charges(db),
                *effects.sets(db, files),
            ],
            Kind.WRONG: [*_counters(db)],
            Kind.STUCK: [],
        }
        if all_ended:
            found[Kind.STUCK] += [
                f"{row['id']} is still {row['state']}"
                for row in db.execute("SELECT id, state FROM jobs")
                if row["state"] not in TERMINAL
            ]
    return [Fault(kind, text) for kind, texts in found.items() for text in texts]


def opened(folder: Path) -> sqlite3.Connection:
    """The folder's database; one on PostgreSQL as a copy in memory, so that the same questions are asked of it."""
    url = url_of(folder)
    db = sqlite3.connect(folder / NAME) if url is None else blocking(lambda: _copy(url))
    db.row_factory = sqlite3.Row
    return db


async def _copy(url: str) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    server = await asyncpg.connect(url)
    try:
        async with server.transaction(isolation="repeatable_read", readonly=True):
            for table in metadata.sorted_tables:
                columns = [column.name for column in table.columns]
                copy.execute(f"CREATE TABLE {table.name} ({', '.join(columns)})")
                rows = await server.fetch(f"SELECT {', '.join(columns)} FROM {table.name}")
                places = ", ".join("?" * len(columns))
                copy.executemany(f"INSERT INTO {table.name} VALUES ({places})", map(tuple, rows))
                for column in {"id", "job_id"}.intersection(columns):  # a long history is asked by job
                    copy.execute(f"CREATE INDEX {table.name}_{column} ON {table.name} ({column})")
    finally:
        await server.close()
    return copy


def _lost(db: sqlite3.Connection, acknowledged: Iterable[str]) -> Iterable[str]:
    rows = {row["id"] for row in db.execute("SELECT id FROM jobs")}
    return [f"{job_id} was acknowledged and has no row" for job_id in acknowledged if job_id not in rows]


def _events(db: sqlite3.Connection) -> Iterable[str]:
    """Sequence numbers without gaps, one end at most, and an outbox entry for each transition."""
    for job in db.execute("SELECT id, seq, state FROM jobs"):
        events = db.execute(
            "SELECT seq, type, status FROM events WHERE job_id = ? ORDER BY seq", (job["id"],)
        ).fetchall()
        if [event["seq"] for event in events] != list(range(1, job["seq"] + 1)):
            yield f"{job['id']} has {[event['seq'] for event in events]}, its counter says {job['seq']}"
        ends = [event for event in events if event["type"] == "done"]
        if len(ends) != (job["state"] in TERMINAL):
            yield f"{job['id']} is {job['state']} with {len(ends)} ends"
        if ends and (ends[0]["status"] != job["state"] or ends[0] is not events[-1]):
            yield f"{job['id']} ended as {ends[0]['status']}, its row says {job['state']}"
        told = [event["seq"] for event in events if event["type"] != "artifact"]
        outbox = db.execute("SELECT seq FROM outbox WHERE job_id = ? ORDER BY seq", (job["id"],))
        if [row["seq"] for row in outbox] != told:
            yield f"{job['id']} has other outbox entries than transitions"


def _attempts(db: sqlite3.Connection) -> Iterable[str]:
    for row in db.execute(
        """SELECT j.id, j.state, j.attempt, count(a.number) AS attempts,
             sum(a.number IS NOT NULL AND a.closed_at IS NULL) AS open
           FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id GROUP BY j.id"""
    ):
        if row["attempts"] != row["attempt"]:
            yield f"{row['id']} counts {row['attempt']} attempts and has {row['attempts']}"
        expected = 1 if row["state"] in ("dispatched", "executing", "storing") else 0
        if (row["open"] or 0) != expected:
            yield f"{row['id']} is {row['state']} with {row['open']} open attempts"


def _ledger(db: sqlite3.Connection) -> Iterable[str]:
    """Charged once, what was produced, but no more than was reserved; sums equal their lines."""
    for row in db.execute(
        """SELECT j.id, j.state, l.reserved, l.charged, l.settled_at,
             (SELECT count(*) FROM artifacts a WHERE a.job_id = j.id) AS artifacts
           FROM jobs j LEFT JOIN ledger l ON l.job_id = j.id"""
    ):
        if row["reserved"] is None:
            yield f"{row['id']} has no line in the ledger"
        elif (row["settled_at"] is not None) != (row["state"] in TERMINAL):
            yield f"{row['id']} is {row['state']}, its ledger line settled at {row['settled_at']}"
        elif (
            row["state"] == "succeeded"
            and row["artifacts"]
            and row["charged"] != min(row["artifacts"], row["reserved"])
        ):
            yield f"{row['id']} was charged {row['charged']} for {row['artifacts']} pictures"
        elif row["state"] == "failed" and row["charged"]:
            yield f"{row['id']} failed and was charged"
    for row in db.execute(
        """SELECT u.account_id, u.day, u.reserved, u.charged,
             (SELECT coalesce(sum(l.reserved), 0) FROM ledger l
              WHERE l.account_id = u.account_id AND l.day = u.day AND l.settled_at IS NULL) AS open,
             (SELECT coalesce(sum(l.charged), 0) FROM ledger l
              WHERE l.account_id = u.account_id AND l.day = u.day) AS settled
           FROM usage_days u"""
    ):
        if (row["reserved"], row["charged"]) != (row["open"], row["settled"]):
            yield f"usage of {row['account_id']} on {row['day']} does not sum to its lines"


def _counters(db: sqlite3.Connection) -> Iterable[str]:
    for row in db.execute(
        """SELECT l.account_id, l.queued, l.running,
             (SELECT count(*) FROM jobs j WHERE j.account_id = l.account_id AND j.state = 'ready') AS ready,
             (SELECT count(*) FROM jobs j WHERE j.account_id = l.account_id
              AND j.state IN ('dispatched', 'executing')) AS busy,
             (SELECT coalesce(sum(n.queued), 0) FROM lane_needs n
              WHERE n.account_id = l.account_id) AS needs
           FROM lanes l"""
    ):
        if (row["queued"], row["running"], row["needs"]) != (row["ready"], row["busy"], row["ready"]):
            yield f"lane of {row['account_id']}: {dict(row)}"


def _artifacts(db: sqlite3.Connection, folder: Path) -> Iterable[str]:
    """Never succeeded without verified bytes; artifacts of the fenced attempt alone."""
    for row in db.execute(
        """SELECT a.*, j.state, j.attempt AS current, j.purged_at
           FROM artifacts a JOIN jobs j ON j.id = a.job_id"""
    ):
        if row["state"] != "succeeded" or row["attempt"] != row["current"]:
            yield f"{row['job_id']}: artifact of attempt {row['attempt']} of {row['current']}, {row['state']}"
        if row["purged_at"] is None:
            path = folder / row["key"]
            data = path.read_bytes() if path.exists() else b""
            if len(data) != row["bytes"] or hashlib.sha256(data).hexdigest() != row["sha256"]:
                yield f"{row['job_id']}: stored bytes differ from what the row says"
    for row in db.execute(
        "SELECT id FROM jobs WHERE state = 'succeeded' AND results = '{}' "
        "AND id NOT IN (SELECT job_id FROM artifacts)"
    ):
        yield f"{row['id']} succeeded without a result"
