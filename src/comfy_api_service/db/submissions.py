"""Submissions that arrive together commit together: the one door by which jobs enter.

`Submissions.add` answers after the commit. A group is decided in order of arrival: idempotency keys and
identical requests first, then the limit on waiting jobs. A fault of the group makes it run again one by one,
so that each submission fails alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from comfy_api_service.db import lanes
from comfy_api_service.db.base import Database, Tx, dumps, packed
from comfy_api_service.db.counters import open_seconds
from comfy_api_service.db.records import output_document
from comfy_api_service.db.requirements import ensure_requirements
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.domain.events import EventType
from comfy_api_service.domain.job import State, Status
from comfy_api_service.domain.submission import NewJob

KEY_SECONDS = 24 * 3600.0
"""How long an Idempotency-Key, and an identical request under `dedupe`, are remembered."""
GROUP = 200
"""Most submissions in one transaction."""


@dataclass(frozen=True, slots=True)
class Written:
    """The job has a row. Counters are those of its lane just after."""

    ordinal: int
    ordinal_cost: float
    ahead: int
    ahead_cost: float
    open_seconds: float
    """Work that backends still have before them."""


@dataclass(frozen=True, slots=True)
class Replay:
    """An earlier submission already made this job."""

    job_id: str
    by_key: bool


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The Idempotency-Key belongs to another body."""


@dataclass(frozen=True, slots=True)
class QueueFull:
    """The limit on waiting jobs is reached."""

    waiting: int


Outcome = Written | Replay | KeyReused | QueueFull


class Submissions:
    """Groups what arrives while the previous group is being written."""

    def __init__(
        self, db: Database, *, queue_limit: int, on_writing: Callable[[], bool] = lambda: False
    ) -> None:
        """`queue_limit` is the most jobs that may wait, over all accounts.

        `on_writing` is called just before a group is handed over: whom it wakes stands behind the group in the
        writer's line, finds it without another round, and shares its commit. It tells whether there was somebody.
        """
        self._db = db
        self._on_writing = on_writing
        self._queue_limit = queue_limit
        self._arrived: list[tuple[NewJob, asyncio.Future[Outcome]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def add(self, job: NewJob) -> Outcome:
        """Durable when it returns. A caller that leaves cancels nothing."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._arrived.append((job, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="submissions")
        return await future

    async def _flush(self) -> None:
        try:
            while self._arrived:
                group, self._arrived = self._arrived[:GROUP], self._arrived[GROUP:]
                await self._write(group)
        finally:
            self._flushing = None

    async def _write(self, group: Sequence[tuple[NewJob, asyncio.Future[Outcome]]]) -> None:
        jobs = [job for job, _ in group]
        followed = self._on_writing()
        try:
            outcomes = await self._db.write(
                lambda tx: insert(tx, jobs, queue_limit=self._queue_limit), followed=followed
            )
        except Exception as fault:  # noqa: BLE001 - it belongs to whoever waits for the answer
            if len(group) == 1 or isinstance(fault, ServiceError):
                for _, future in group:
                    if not future.done():
                        future.set_exception(fault)
                        future.exception()  # seen, also when its caller has left
                return
            for one in group:
                await self._write([one])
            return
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)


async def insert(tx: Tx, group: Sequence[NewJob], *, queue_limit: int) -> list[Outcome]:
    """Decide and write a group in one transaction; outcomes in the group's order."""
    known_keys = await _known_keys(tx, group)
    known_requests = await _known_requests(tx, group)
    row = await tx.one("SELECT coalesce(sum(queued), 0) AS waiting FROM lanes WHERE queued > 0")
    waiting = int(row["waiting"]) if row else 0
    outcomes: list[Outcome | None] = []
    fresh: list[NewJob] = []
    for job in group:
        outcome = _earlier(job, known_keys, known_requests)
        if outcome is None and waiting >= queue_limit:
            outcome = QueueFull(waiting)
        outcomes.append(outcome)
        if outcome is None:
            waiting += 1
            fresh.append(job)
            known_requests[job.account_id, job.fingerprint] = job.id
            if job.idempotency_key is not None:
                known_keys[job.account_id, job.idempotency_key] = (job.fingerprint, job.id)
    written = iter(await _insert_fresh(tx, fresh)) if fresh else iter(())
    return [outcome if outcome is not None else next(written) for outcome in outcomes]


def _earlier(
    job: NewJob,
    known_keys: dict[tuple[str, str], tuple[str, str]],
    known_requests: dict[tuple[str, str], str],
) -> Outcome | None:
    if job.idempotency_key is not None:
        known = known_keys.get((job.account_id, job.idempotency_key))
        if known is not None:
            fingerprint, job_id = known
            return Replay(job_id, by_key=True) if fingerprint == job.fingerprint else KeyReused()
    if job.options.dedupe:
        identical = known_requests.get((job.account_id, job.fingerprint))
        if identical is not None:
            return Replay(identical, by_key=False)
    return None


async def _known_keys(tx: Tx, group: Sequence[NewJob]) -> dict[tuple[str, str], tuple[str, str]]:
    keys = sorted({job.idempotency_key for job in group if job.idempotency_key is not None})
    if not keys:
        return {}
    rows = await tx.all(
        f"""SELECT account_id, key, fingerprint, job_id FROM idempotency_keys
            WHERE {tx.dialect.among("key", "keys")} AND {tx.dialect.among("account_id", "accounts")}
            AND created_at > :since""",
        {
            "keys": dumps(keys),
            "accounts": dumps(sorted({job.account_id for job in group})),
            "since": group[0].queued_at - KEY_SECONDS,
        },
    )
    return {(row["account_id"], row["key"]): (row["fingerprint"], row["job_id"]) for row in rows}


async def _known_requests(tx: Tx, group: Sequence[NewJob]) -> dict[tuple[str, str], str]:
    wanted = [job for job in group if job.options.dedupe]
    if not wanted:
        return {}
    rows = await tx.all(
        f"""SELECT account_id, fingerprint, min(id) AS id FROM jobs
            WHERE {tx.dialect.among("account_id", "accounts")} AND {tx.dialect.among("fingerprint", "prints")}
            AND queued_at > :since AND cancel_requested_at IS NULL AND purged_at IS NULL
            AND state IN ('ready', 'dispatched', 'executing', 'storing', 'succeeded')
            GROUP BY account_id, fingerprint""",
        {
            "accounts": dumps(sorted({job.account_id for job in wanted})),
            "prints": dumps(sorted({job.fingerprint for job in wanted})),
            "since": wanted[0].queued_at - KEY_SECONDS,
        },
    )
    return {(row["account_id"], row["fingerprint"]): row["id"] for row in rows}


async def _insert_fresh(tx: Tx, jobs: Sequence[NewJob]) -> list[Written]:
    await ensure_requirements(tx, {job.requirement.id: job.requirement for job in jobs}, jobs[0].queued_at)
    placed = await _enter_lanes(tx, jobs)
    await tx.many(_INSERT_KEY, [_key_row(job) for job in jobs if job.idempotency_key is not None])
    await tx.many(_INSERT_JOB, [_job_row(job, place) for job, place in zip(jobs, placed, strict=True)])
    await tx.many(_INSERT_LABEL, [
        {"job": job.id, "account": job.account_id, "key": key, "value": value}
        for job in jobs for key, value in job.options.labels.items()
    ])  # fmt: skip
    noted = [
        {
            "job": job.id,
            "account": job.account_id,
            "type": EventType.QUEUED,
            "status": Status.QUEUED,
            "at": job.queued_at,
        }
        for job in jobs
    ]
    await tx.many(
        "INSERT INTO events (job_id, seq, type, status, at, data) VALUES (:job, 1, :type, :status, :at, '{}')",
        [{k: v for k, v in row.items() if k != "account"} for row in noted],
    )
    await tx.many(
        "INSERT INTO outbox (job_id, account_id, seq, type, at) VALUES (:job, :account, 1, :type, :at)",
        [{k: v for k, v in row.items() if k != "status"} for row in noted],
    )
    await _reserve(tx, jobs)
    return placed


async def _enter_lanes(tx: Tx, jobs: Sequence[NewJob]) -> list[Written]:
    """One change a lane and need, in order of account; each job learns its place."""
    by_account: dict[str, list[NewJob]] = {}
    for job in jobs:
        by_account.setdefault(job.account_id, []).append(job)
    places: dict[str, Written] = {}
    before = await open_seconds(tx, jobs[0].queued_at)
    for account_id in sorted(by_account):
        lane = await tx.one(
            """SELECT queued, queued_cost, entered, entered_cost FROM lanes WHERE account_id = :account"""
            + tx.dialect.for_update,
            {"account": account_id},
        )
        if lane is None:
            raise LookupError("an account without a lane")
        queued, queued_cost = lane["queued"], lane["queued_cost"]
        entered, entered_cost = lane["entered"], lane["entered_cost"]
        needs: dict[str, list[NewJob]] = {}
        for job in by_account[account_id]:
            places[job.id] = Written(entered + 1, entered_cost + job.cost, queued, queued_cost, before)
            queued, queued_cost = queued + 1, queued_cost + job.cost
            entered, entered_cost = entered + 1, entered_cost + job.cost
            needs.setdefault(job.requirement.id, []).append(job)
        for requirement_id, members in sorted(needs.items()):
            await lanes.enter(
                tx, account_id, requirement_id, jobs=len(members), cost=sum(job.cost for job in members)
            )
    return [places[job.id] for job in jobs]


async def _reserve(tx: Tx, jobs: Sequence[NewJob]) -> None:
    """The quota ledger: a line a job, sums once an account and day."""
    sums: dict[tuple[str, str], int] = {}
    rows = []
    for job in jobs:
        day = utc_day(job.queued_at)
        rows.append({"job": job.id, "account": job.account_id, "day": day, "images": job.images})
        sums[job.account_id, day] = sums.get((job.account_id, day), 0) + job.images
    await tx.many(
        "INSERT INTO ledger (job_id, account_id, day, reserved) VALUES (:job, :account, :day, :images)", rows
    )
    await tx.many(
        """INSERT INTO usage_days (account_id, day, reserved) VALUES (:account, :day, :images)
           ON CONFLICT (account_id, day) DO UPDATE SET reserved = usage_days.reserved + excluded.reserved""",
        [{"account": account, "day": day, "images": images} for (account, day), images in sorted(sums.items())],
    )  # fmt: skip


def utc_day(at: float) -> str:
    """The UTC day of a moment, `YYYY-MM-DD`: the day a submission is counted on."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _key_row(job: NewJob) -> dict[str, object]:
    return {
        "account": job.account_id,
        "key": job.idempotency_key,
        "print": job.fingerprint,
        "job": job.id,
        "at": job.queued_at,
    }


def _job_row(job: NewJob, place: Written) -> dict[str, object]:
    options = job.options
    return {
        "id": job.id,
        "account": job.account_id,
        "state": State.READY,
        "max_attempts": options.max_attempts,
        "priority": options.priority,
        "requirement": job.requirement.id,
        "cost": job.cost,
        "ordinal": place.ordinal,
        "ordinal_cost": place.ordinal_cost,
        "images": job.images,
        "timing_key": job.timing_key,
        "params": dumps(job.params),
        "labels": dumps(options.labels),
        "output": dumps(output_document(options.output)),
        "graph": None if job.graph is None else packed(job.graph),
        "print": job.fingerprint,
        "webhook": options.webhook_url,
        "batch": job.batch_id,
        "batch_index": job.batch_index,
        "at": job.queued_at,
        "deadline": None if options.deadline is None else job.queued_at + options.deadline,
    }


_INSERT_KEY = """INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
VALUES (:account, :key, :print, :job, :at)
ON CONFLICT (account_id, key) DO UPDATE SET
  fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = excluded.created_at"""

_INSERT_JOB = """INSERT INTO jobs (id, account_id, state, seq, max_attempts, priority, requirement_id, cost, ordinal,
  ordinal_cost, images, timing_key, params, labels, output, graph, fingerprint, webhook_url, batch_id, batch_index,
  queued_at, deadline_at)
VALUES (:id, :account, :state, 1, :max_attempts, :priority, :requirement, :cost, :ordinal,
  :ordinal_cost, :images, :timing_key, :params, :labels, :output, :graph, :print, :webhook, :batch, :batch_index,
  :at, :deadline)"""

_INSERT_LABEL = (
    "INSERT INTO job_labels (job_id, account_id, key, value) VALUES (:job, :account, :key, :value)"
)
