"""What a worker asks of the database between claims: marks, deadlines, open attempts, upkeep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_api_service.db.base import Reader, Tx, dumps, loads
from comfy_api_service.db.records import inputs_from, output_from
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.job import OutputOptions, State
from comfy_api_service.domain.upload import JobInput


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt that nobody has closed, as a worker finds it when it takes over a backend."""

    job_id: str
    account_id: str
    attempt: int
    prompt_id: str
    worker_id: str
    client_id: str
    state: State
    graph: bytes | None
    params: Mapping[str, Any]
    output: OutputOptions
    model: str | None
    timing_key: str
    images: int
    dispatched_at: float
    queued_at: float
    inputs: tuple[JobInput, ...] = ()
    trace_context: str | None = None

    @property
    def fence(self) -> Fence:
        return Fence(self.job_id, self.attempt, self.worker_id)


async def open_attempts(tx: Reader, backend_id: str, worker_id: str) -> list[OpenAttempt]:
    """Those that the worker answers for."""
    rows = await tx.all(
        """SELECT j.id, j.account_id, j.attempt, a.prompt_id, a.worker_id, a.client_id, j.state, j.graph, j.params,
             j.output, r.primary_model, j.timing_key, j.images, a.dispatched_at, j.inputs, j.queued_at, j.trace_context
           FROM attempts a JOIN jobs j ON j.id = a.job_id AND j.attempt = a.number
           LEFT JOIN requirements r ON r.id = j.requirement_id
           WHERE a.backend_id = :backend AND a.worker_id = :worker AND a.closed_at IS NULL
             AND j.state IN ('dispatched', 'executing', 'storing') ORDER BY a.dispatched_at""",
        {"backend": backend_id, "worker": worker_id},
    )
    return [
        OpenAttempt(
            job_id=row["id"],
            account_id=row["account_id"],
            attempt=row["attempt"],
            prompt_id=row["prompt_id"],
            worker_id=row["worker_id"],
            client_id=row["client_id"],
            state=State(row["state"]),
            graph=row["graph"],
            params=loads(row["params"]),
            output=output_from(row["output"]),
            model=row["primary_model"],
            timing_key=row["timing_key"],
            images=row["images"],
            dispatched_at=row["dispatched_at"],
            queued_at=row["queued_at"],
            inputs=inputs_from(row["inputs"]),
            trace_context=row["trace_context"],
        )
        for row in rows
    ]


_DRIVEN = """EXISTS (SELECT 1 FROM backends b JOIN workers w ON w.id = b.worker_id
  WHERE b.id = {backend} AND b.removed_at IS NULL AND w.counter >= 0)"""
"""A living worker drives the backend."""


async def abandoned_backends(tx: Reader) -> dict[str, bool]:
    """Backends with open attempts that nobody drives, and whether they are on the list no more."""
    rows = await tx.all(
        f"""SELECT DISTINCT a.backend_id, b.removed_at IS NOT NULL AS removed
            FROM attempts a LEFT JOIN backends b ON b.id = a.backend_id
            WHERE a.closed_at IS NULL AND NOT {_DRIVEN.format(backend="a.backend_id")}"""
    )
    return {row["backend_id"]: bool(row["removed"]) for row in rows}


async def adopt(tx: Tx, backend_id: str, worker_id: str) -> list[OpenAttempt]:
    """Answer for the open attempts of a backend from now on; those who did so before are fenced off.

    Nothing if another living worker drives the backend.
    """
    await tx.lock("backends")
    await tx.run(
        f"""UPDATE attempts SET worker_id = :worker WHERE backend_id = :backend AND closed_at IS NULL
            AND (NOT {_DRIVEN.format(backend=":backend")}
              OR EXISTS (SELECT 1 FROM backends b WHERE b.id = :backend AND b.worker_id = :worker))""",
        {"worker": worker_id, "backend": backend_id},
    )
    return await open_attempts(tx, backend_id, worker_id)


async def ready_since(tx: Reader, job_id: str) -> float | None:
    """When the last closed attempt of a job ended; None if it has none."""
    row = await tx.one("SELECT max(closed_at) AS at FROM attempts WHERE job_id = :job", {"job": job_id})
    return None if row is None or row["at"] is None else float(row["at"])


async def waited(tx: Reader, job_id: str) -> tuple[str | None, float] | None:
    """A job's place in a trace, and when it was accepted."""
    row = await tx.one("SELECT trace_context, queued_at FROM jobs WHERE id = :job", {"job": job_id})
    return None if row is None else (row["trace_context"], float(row["queued_at"]))


async def closed_among(tx: Reader, prompt_ids: Sequence[str]) -> dict[str, bool]:
    """Those of the prompts that are attempts of ours, and whether they are closed: then nobody wants them."""
    rows = await tx.all(
        f"""SELECT prompt_id, closed_at IS NOT NULL AS closed FROM attempts
            WHERE {tx.dialect.among("prompt_id", "ids")}""",
        {"ids": dumps(list(prompt_ids))},
    )
    return {row["prompt_id"]: bool(row["closed"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Marks:
    """Open jobs that should end: job ids by reason."""

    canceled: frozenset[str]
    overdue: frozenset[str]


async def marks(tx: Reader, now: float) -> Marks:
    """Cancel marks and passed deadlines of jobs that backends have."""
    rows = await tx.all(
        """SELECT id, cancel_requested_at FROM jobs WHERE state IN ('dispatched', 'executing', 'storing')
           AND (cancel_requested_at IS NOT NULL OR (deadline_at IS NOT NULL AND deadline_at <= :now))""",
        {"now": now},
    )
    canceled = frozenset(row["id"] for row in rows if row["cancel_requested_at"] is not None)
    return Marks(canceled, frozenset(row["id"] for row in rows) - canceled)


async def overdue_ready(tx: Reader, now: float, *, limit: int) -> list[str]:
    """Ready jobs whose deadline has passed."""
    rows = await tx.all(
        """SELECT id FROM jobs WHERE deadline_at <= :now AND deadline_at IS NOT NULL
           AND state IN ('ready', 'dispatched', 'executing', 'storing') AND state = 'ready' LIMIT :limit""",
        {"now": now, "limit": limit},
    )
    return [row["id"] for row in rows]


async def unservable(tx: Tx, *, now: float, timeout: float, limit: int) -> list[str]:
    """Ready jobs of needs that no registered backend has satisfied for `timeout` seconds."""
    satisfied = """EXISTS (SELECT 1 FROM capabilities c JOIN backends b ON b.inventory_hash = c.inventory_hash
        WHERE c.requirement_id = requirements.id AND b.removed_at IS NULL)"""
    await tx.run(
        f"UPDATE requirements SET unservable_since = NULL WHERE unservable_since IS NOT NULL AND {satisfied}"
    )
    await tx.run(
        f"""UPDATE requirements SET unservable_since = :now WHERE unservable_since IS NULL
            AND id IN (SELECT requirement_id FROM lane_needs WHERE queued > 0) AND NOT {satisfied}""",
        {"now": now},
    )
    rows = await tx.all(
        """SELECT j.id FROM requirements r JOIN lane_needs n ON n.requirement_id = r.id
           JOIN jobs j ON j.account_id = n.account_id AND j.requirement_id = r.id AND j.state = 'ready'
           WHERE r.unservable_since < :since AND j.queued_at < :since LIMIT :limit""",
        {"since": now - timeout, "limit": limit},
    )
    return [row["id"] for row in rows]


async def expired(tx: Reader, now: float, *, limit: int) -> list[str]:
    """Jobs whose artifacts have outlived their retention."""
    rows = await tx.all(
        """SELECT id FROM jobs WHERE expires_at <= :now AND expires_at IS NOT NULL AND purged_at IS NULL
           LIMIT :limit""",
        {"now": now, "limit": limit},
    )
    return [row["id"] for row in rows]


async def forget(tx: Tx, *, before: float, keys_before: float, limit: int) -> int:
    """Delete old rows: jobs that ended before a moment and have no artifacts left, old keys, old outbox lines."""
    await tx.run("DELETE FROM idempotency_keys WHERE created_at < :before", {"before": keys_before})
    gone = await tx.run(
        """DELETE FROM jobs WHERE id IN (
             SELECT id FROM jobs WHERE finished_at < :before AND finished_at IS NOT NULL
             AND (purged_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.job_id = jobs.id))
             LIMIT :limit)""",
        {"before": before, "limit": limit},
    )
    await tx.run(
        """DELETE FROM ledger WHERE settled_at < :before
           AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = ledger.job_id)""",
        {"before": before},
    )
    await tx.run("DELETE FROM outbox WHERE at < :before", {"before": before})
    await tx.run(
        """DELETE FROM batches WHERE created_at < :before
           AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.batch_id = batches.id)""",
        {"before": before},
    )
    return gone


async def left_over(tx: Reader, fence: Fence, keys: Sequence[str], *, mine: bool) -> list[str]:
    """Those of the keys of an attempt's files that neither a row names nor an open attempt may come to want.

    `mine`: an attempt that this worker answers for may be open.
    """
    still_open = await tx.one(
        """SELECT worker_id FROM attempts WHERE job_id = :job AND number = :attempt AND closed_at IS NULL""",
        {"job": fence.job_id, "attempt": fence.attempt},
    )
    if still_open is not None and not (mine and still_open["worker_id"] == fence.worker_id):
        return []
    kept = await kept_keys(tx, [fence.job_id])
    return [key for key in keys if key not in kept]


async def kept_keys(tx: Reader, job_ids: Sequence[str]) -> set[str]:
    """Keys of the artifacts of these jobs that are to be kept."""
    rows = await tx.all(
        f"""SELECT a.key FROM artifacts a JOIN jobs j ON j.id = a.job_id
            WHERE {tx.dialect.among("a.job_id", "ids")} AND j.purged_at IS NULL""",
        {"ids": dumps(sorted(job_ids))},
    )
    return {row["key"] for row in rows}


async def open_job_ids(tx: Reader) -> set[str]:
    rows = await tx.all("SELECT id FROM jobs WHERE state IN ('dispatched', 'executing', 'storing')")
    return {row["id"] for row in rows}
