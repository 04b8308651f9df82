"""Jobs as they are read: by their owner, through one filter that no query goes around."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.db.records import JOB_COLUMNS, artifact_from, event_from, grouped, job_from
from comfy_api_service.domain.events import Event
from comfy_api_service.domain.job import SHOWN, Job, State, Status

OWNED = "j.account_id = :account"
"""The owner's filter; every query on a job for a caller contains it."""


_OPEN: Final = "account_id || '' = :account AND state IN ('dispatched', 'executing', 'storing') AND state = "
_UNSUCCESSFUL: Final = "account_id = :account AND state IN ('failed', 'canceled') AND state = "
_RARE: Final = {
    State.READY: "account_id = :account AND state = 'ready'",
    State.DISPATCHED: f"{_OPEN}'dispatched'",
    State.EXECUTING: f"{_OPEN}'executing'",
    State.STORING: f"{_OPEN}'storing'",
    State.FAILED: f"{_UNSUCCESSFUL}'failed'",
    State.CANCELED: f"{_UNSUCCESSFUL}'canceled'",
}
"""Conditions word by word as those of the partial indexes: only then are these used. From those that backends have,
which are few whoever's they are, the index of all of an account's jobs is kept away.
"""
FEW: Final = 1000


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which of one's jobs; times are seconds since the epoch, `since` inclusive, `until` exclusive."""

    statuses: frozenset[Status] = frozenset()
    batch_id: str | None = None
    since: float | None = None
    until: float | None = None
    label: tuple[str, str] | None = None
    workflow_id: str | None = None


async def get(tx: Reader, account_id: str, job_id: str) -> Job | None:
    row = await tx.one(
        f"SELECT {JOB_COLUMNS} FROM jobs j WHERE j.id = :id AND {OWNED}",
        {"id": job_id, "account": account_id},
    )
    if row is None:
        return None
    return (await with_artifacts(tx, [row]))[0]


async def graph_of(tx: Reader, account_id: str, job_id: str) -> dict[str, Any] | None:
    """The graph that the job runs, with the ids of its input files; None while it has none."""
    row = await tx.one(
        f"SELECT j.graph FROM jobs j WHERE j.id = :id AND {OWNED}", {"id": job_id, "account": account_id}
    )
    return None if row is None else loads(row["graph"])


async def webhook_url_of(tx: Reader, account_id: str, job_id: str) -> str | None:
    row = await tx.one(
        f"SELECT j.webhook_url FROM jobs j WHERE j.id = :id AND {OWNED}",
        {"id": job_id, "account": account_id},
    )
    return None if row is None else row["webhook_url"]


async def many(tx: Reader, account_id: str, job_ids: Sequence[str]) -> dict[str, Job]:
    """Those of the jobs that exist and are the account's."""
    rows = await tx.all(
        f"SELECT {JOB_COLUMNS} FROM jobs j WHERE {tx.dialect.among('j.id', 'ids')} AND {OWNED}",
        {"ids": dumps(list(job_ids)), "account": account_id},
    )
    return {job.id: job for job in await with_artifacts(tx, rows)}


async def page(
    tx: Reader, account_id: str, filters: JobFilters, *, before: str | None, limit: int
) -> list[Job]:
    """Newest first; `before` is the last job's id of the page before."""
    where = [OWNED]
    params: dict[str, Any] = {"account": account_id, "limit": limit}
    if before is not None:
        where.append("j.id < :before")
        params["before"] = before
    if filters.statuses:
        where.append(await _of_statuses(tx, account_id, filters.statuses, params))
    if filters.batch_id is not None:
        where.append("j.batch_id = :batch")
        params["batch"] = filters.batch_id
    if filters.workflow_id is not None:
        where.append("j.workflow_id = :workflow")
        params["workflow"] = filters.workflow_id
    if filters.since is not None:
        where.append("j.queued_at >= :since")
        params["since"] = filters.since
    if filters.until is not None:
        where.append("j.queued_at < :until")
        params["until"] = filters.until
    if filters.label is not None:
        where.append(
            "EXISTS (SELECT 1 FROM job_labels l WHERE l.job_id = j.id AND l.key = :key AND l.value = :value)"
        )
        params["key"], params["value"] = filters.label
    rows = await tx.all(
        f"SELECT {JOB_COLUMNS} FROM jobs j WHERE {' AND '.join(where)} ORDER BY j.id DESC LIMIT :limit",
        params,
    )
    return await with_artifacts(tx, rows)


async def _of_statuses(
    tx: Reader, account_id: str, statuses: frozenset[Status], params: dict[str, Any]
) -> str:
    """The condition, so that what is rare among many jobs is found by an index instead of a walk over them all."""
    states = [state for state, status in SHOWN.items() if status in statuses]
    if _RARE.keys() >= set(states) and (State.READY not in states or await _few_queued(tx, account_id)):
        found = [f"SELECT id FROM jobs WHERE {_RARE[one]}" for one in states]
        return f"j.id IN ({' UNION ALL '.join(found)})"
    params["states"] = dumps(states)
    return tx.dialect.among("j.state", "states")


async def _few_queued(tx: Reader, account_id: str) -> bool:
    """Where many are, the newest are among the newest jobs."""
    row = await tx.one("SELECT queued FROM lanes WHERE account_id = :account", {"account": account_id})
    return row is None or row["queued"] <= FEW


async def of_batch(tx: Reader, account_id: str, batch_id: str) -> list[tuple[int, Job]]:
    """The jobs of a batch with their indices in it."""
    rows = await tx.all(
        f"""SELECT {JOB_COLUMNS}, j.batch_index FROM jobs j
            WHERE j.batch_id = :batch AND {OWNED} ORDER BY j.batch_index""",
        {"batch": batch_id, "account": account_id},
    )
    jobs = await with_artifacts(tx, rows)
    return [(row["batch_index"], job) for row, job in zip(rows, jobs, strict=True)]


async def with_artifacts(tx: Reader, rows: Sequence[Row]) -> list[Job]:
    """Jobs of rows of `JOB_COLUMNS`, in their order."""
    done = [row["id"] for row in rows if row["state"] == "succeeded"]
    found = (
        await tx.all(
            f"SELECT * FROM artifacts a WHERE {tx.dialect.among('a.job_id', 'ids')} ORDER BY a.job_id, a.idx",
            {"ids": dumps(done)},
        )
        if done
        else []
    )
    artifacts = grouped(found, "job_id")
    return [job_from(row, map(artifact_from, artifacts.get(row["id"], ()))) for row in rows]


async def events_after(tx: Reader, account_id: str, job_id: str, seq: int) -> list[Event]:
    rows = await tx.all(
        f"""SELECT e.job_id, e.seq, e.type, e.status, e.at, e.data FROM events e JOIN jobs j ON j.id = e.job_id
            WHERE e.job_id = :job AND e.seq > :seq AND {OWNED} ORDER BY e.seq""",
        {"job": job_id, "seq": seq, "account": account_id},
    )
    return [event_from(row) for row in rows]


async def ended_among(tx: Reader, job_ids: Sequence[str]) -> list[str]:
    """Which of these jobs are at their end; for this process's listeners, who were checked when they came."""
    rows = await tx.all(
        f"SELECT j.id FROM jobs j WHERE {tx.dialect.among('j.id', 'ids')} AND j.finished_at IS NOT NULL",
        {"ids": dumps(list(job_ids))},
    )
    return [row["id"] for row in rows]


async def artifact_keys(tx: Reader, job_ids: Sequence[str]) -> list[str]:
    rows = await tx.all(
        f"SELECT key FROM artifacts WHERE {tx.dialect.among('job_id', 'ids')}",
        {"ids": dumps(list(job_ids))},
    )
    return [row["key"] for row in rows]


async def is_kept(tx: Reader, key: str) -> bool:
    """Whether a stored file belongs to a job whose results were not deleted."""
    row = await tx.one(
        """SELECT 1 AS kept FROM artifacts a JOIN jobs j ON j.id = a.job_id
           WHERE a.job_id = :job AND a.key = :key AND j.purged_at IS NULL""",
        {"job": key.split("/")[1] if "/" in key else "", "key": key},
    )
    return row is not None


async def mark_purged(tx: Tx, job_ids: Sequence[str], now: float) -> None:
    await tx.run(
        f"UPDATE jobs SET purged_at = :now WHERE {tx.dialect.among('id', 'ids')} AND purged_at IS NULL",
        {"ids": dumps(list(job_ids)), "now": now},
    )
