"""A group of new jobs in one transaction: what is decided about each, and the rows of those that enter.

In order of arrival: idempotency keys and identical requests first, then the limits on waiting jobs, the account's
own and that of all, and its images of the day.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from comfy_api_service.db import keys, lanes
from comfy_api_service.db.allowances import (
    Allowances,
    DayOf,
    QuotaSpent,
    WaitingFull,
    asking_used,
    limited_days,
    used_of,
)
from comfy_api_service.db.base import Part, Reader, Tx, dumps, packed
from comfy_api_service.db.counters import OPEN_SECONDS, open_seconds
from comfy_api_service.db.records import inputs_document, output_document
from comfy_api_service.db.requirements import ensure_requirements
from comfy_api_service.domain.events import EventType
from comfy_api_service.domain.job import State, Status
from comfy_api_service.domain.submission import NewJob
from comfy_api_service.domain.times import utc_day


class Written(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class InputsGone:
    """Uploads that the job needs were deleted, or expired and were swept, since they were looked at."""

    upload_ids: tuple[str, ...]


Refusal = QueueFull | WaitingFull | QuotaSpent
Outcome = Written | Replay | KeyReused | QueueFull | WaitingFull | QuotaSpent | InputsGone


async def insert(
    tx: Tx,
    group: Sequence[NewJob],
    *,
    queue_limit: int,
    far_from_limit: bool = False,
    again: bool = False,
    known_needs: Collection[str] = (),
) -> list[Outcome]:
    """Decide and write a group in one transaction; outcomes in the group's order.

    Locked in the order of all writers: keys, requirements, lanes, then the queue's limit. `far_from_limit`
    spares counting all lanes. `again`: the group may be there already, since nobody heard of its commit.
    `known_needs` were written before: raises LookupError for one of the group's that is no longer there.
    """
    if again:
        there = await _already_written(tx, group)
        rest = [job for job in group if job.id not in there]
        others = iter(await insert(tx, rest, queue_limit=queue_limit, far_from_limit=far_from_limit))
        return [there[job.id] if job.id in there else next(others) for job in group]
    known = await keys.look_up(tx, group)
    open_ones = [job for job in group if _by_key(job, known.used) is None]
    ground = await _ground(tx, open_ones, known_needs)
    allowed = Allowances(ground.held, ground.used)
    requests = await _known_requests(tx, open_ones)
    held = await _lock_uploads(tx, open_ones)
    waiting = 0 if far_from_limit or not open_ones else await _count_waiting(tx)
    used = dict(known.used)
    outcomes: list[Outcome | None] = []
    fresh: list[NewJob] = []
    for job in group:
        outcome = _by_key(job, used) or _by_request(job, requests) or _gone(job, held) or allowed.refusal(job)
        if outcome is None and waiting >= queue_limit:
            outcome = QueueFull(waiting)
        outcomes.append(outcome)
        if outcome is None:
            waiting += 1
            allowed.admitted(job)
            fresh.append(job)
            requests[job.account_id, job.fingerprint] = job.id
            if job.idempotency_key is not None:
                used[job.account_id, job.idempotency_key] = (job.fingerprint, job.id)
    await keys.keep(tx, known, fresh)
    written = iter(await _insert_fresh(tx, fresh, ground)) if fresh else iter(())
    return [outcome if outcome is not None else next(written) for outcome in outcomes]


async def refusals(
    tx: Reader, group: Sequence[NewJob], *, queue_limit: int, far_from_limit: bool
) -> dict[str, Refusal]:
    """Jobs that are refused for what is committed already, without a lock: who is told no, again and again, keeps
    nobody waiting who claims or submits.

    Others are left to `insert`: those that may be replays, and those for which more has to be looked at.
    """
    plain = [job for job in group if not (job.options.dedupe or job.inputs)]
    if not plain:
        return {}
    brought = {(job.account_id, job.idempotency_key) for job in plain if job.idempotency_key is not None}
    replayed = {*await keys.used(tx, sorted(brought), plain[0].queued_at)} if brought else set()
    days = limited_days(plain)
    rows, waits, *day_rows = await tx.several(
        (
            f"SELECT l.account_id, {lanes.COLUMNS} FROM lanes l WHERE {tx.dialect.among('l.account_id', 'accounts')}",
            {"accounts": dumps(sorted({job.account_id for job in plain}))},
        ),
        (_WAITING, {}),
        *([asking_used(tx.dialect, days, locked=False)] if days else []),
    )
    allowed = Allowances(
        {row["account_id"]: lanes.Held.from_row(row) for row in rows}, used_of(day_rows[0]) if days else {}
    )
    waiting = 0 if far_from_limit else int(waits[0]["waiting"])
    refused: dict[str, Refusal] = {}
    for job in plain:
        if job.idempotency_key is not None:
            key = job.account_id, job.idempotency_key
            if key in replayed:
                continue
            replayed.add(key)
        refusal = allowed.refusal(job) or (QueueFull(waiting) if waiting >= queue_limit else None)
        if refusal is None:
            allowed.admitted(job)
            waiting += 1
        else:
            refused[job.id] = refusal
    return refused


async def _already_written(tx: Tx, group: Sequence[NewJob]) -> dict[str, Outcome]:
    """Those of the group that have a row."""
    rows = await tx.all(
        f"""SELECT j.id, j.ordinal, j.ordinal_cost, j.cost, {lanes.COLUMNS} FROM jobs j
            JOIN lanes l ON l.account_id = j.account_id WHERE {tx.dialect.among("j.id", "ids")}""",
        {"ids": dumps([job.id for job in group])},
    )
    seconds = await open_seconds(tx, group[0].queued_at)
    return {
        row["id"]: Written(
            row["ordinal"],
            row["ordinal_cost"],
            max(row["ordinal"] - 1 - (row["entered"] - row["queued"]), 0),
            max(row["ordinal_cost"] - row["cost"] - (row["entered_cost"] - row["queued_cost"]), 0.0),
            seconds,
        )
        for row in rows
    }


def _by_key(job: NewJob, used: Mapping[keys.KeyOf, tuple[str, str]]) -> Outcome | None:
    if job.idempotency_key is None:
        return None
    known = used.get((job.account_id, job.idempotency_key))
    if known is None:
        return None
    fingerprint, job_id = known
    return Replay(job_id, by_key=True) if fingerprint == job.fingerprint else KeyReused()


def _by_request(job: NewJob, requests: Mapping[tuple[str, str], str]) -> Outcome | None:
    identical = requests.get((job.account_id, job.fingerprint)) if job.options.dedupe else None
    return None if identical is None else Replay(identical, by_key=False)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a group is placed on: the lanes, locked, by account; where lanes enter; what backends have to do; what
    was used of the days of accounts that have so many images a day.
    """

    held: Mapping[str, lanes.Held]
    edge: lanes.Frontier
    open_seconds: float
    used: Mapping[DayOf, int]


async def _ground(tx: Tx, jobs: Sequence[NewJob], known_needs: Collection[str]) -> _Ground:
    """For those that may become jobs, with all that they need known to the scheduler."""
    if not jobs:
        return _Ground({}, lanes.Frontier({}, 0.0), 0.0, {})
    needs = {job.requirement.id: job.requirement for job in jobs}
    now = jobs[0].queued_at
    new = {need: requirement for need, requirement in needs.items() if need not in known_needs}
    if new:
        await ensure_requirements(tx, new, now)
    days = limited_days(jobs)
    known, locked, edge, work, *day_rows = await tx.several(
        (f"SELECT id FROM requirements WHERE {tx.dialect.among('id', 'ids')}", {"ids": dumps(sorted(needs))}),
        (
            f"""SELECT l.account_id, {lanes.COLUMNS} FROM lanes l
                WHERE {tx.dialect.among("l.account_id", "accounts")} ORDER BY l.account_id"""
            + tx.dialect.locking("l"),
            {"accounts": dumps(sorted({job.account_id for job in jobs}))},
        ),
        lanes.asking_frontier(tx.dialect, needs),
        (OPEN_SECONDS, {"now": now}),
        *([asking_used(tx.dialect, days)] if days else []),
    )
    if needs.keys() - {row["id"] for row in known}:
        raise LookupError("a need that was known has been forgotten")
    used = used_of(day_rows[0]) if days else {}
    if new_days := days - used.keys():
        used |= used_of(await tx.all(*asking_used(tx.dialect, new_days)))
    return _Ground(
        {row["account_id"]: lanes.Held.from_row(row) for row in locked},
        lanes.frontier_of(edge),
        float(work[0]["seconds"]),
        used,
    )


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
            "since": wanted[0].queued_at - keys.KEY_SECONDS,
        },
    )
    return {(row["account_id"], row["fingerprint"]): row["id"] for row in rows}


async def _lock_uploads(tx: Tx, group: Sequence[NewJob]) -> set[tuple[str, str]]:
    """Account and id of the uploads that the group needs and that are there; nobody deletes one meanwhile."""
    wanted = {one.upload_id for job in group for one in job.inputs}
    if not wanted:
        return set()
    accounts = {job.account_id for job in group if job.inputs}
    rows = await tx.all(
        f"""SELECT id, account_id FROM uploads WHERE {tx.dialect.among("id", "ids")}
            AND {tx.dialect.among("account_id", "accounts")} ORDER BY id"""
        + tx.dialect.locking("uploads"),
        {"ids": dumps(sorted(wanted)), "accounts": dumps(sorted(accounts))},
    )
    return {(row["account_id"], row["id"]) for row in rows}


def _gone(job: NewJob, held: Collection[tuple[str, str]]) -> Outcome | None:
    gone = {one.upload_id for one in job.inputs if (job.account_id, one.upload_id) not in held}
    return InputsGone(tuple(sorted(gone))) if gone else None


_WAITING = "SELECT coalesce(sum(queued), 0) AS waiting FROM lanes WHERE queued > 0"


async def _count_waiting(tx: Tx) -> int:
    """Jobs that wait, over all accounts. Submissions elsewhere wait until this one is written, or not."""
    await tx.lock("queue limit")
    row = await tx.one(_WAITING)
    return int(row["waiting"]) if row else 0


async def _insert_fresh(tx: Tx, jobs: Sequence[NewJob], ground: _Ground) -> list[Written]:
    written = places(jobs, ground.held, ground.open_seconds)
    placed = {job.id: one for job, one in zip(jobs, written, strict=True)}
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
    await tx.together(
        *await _entered(tx, jobs, ground),
        (_INSERT_JOB, [_job_row(job, placed[job.id]) for job in jobs]),
        (_INSERT_LABEL, [
            {"job": job.id, "account": job.account_id, "key": key, "value": value}
            for job in jobs for key, value in job.options.labels.items()
        ]),
        *_pinned(jobs),
        (_INSERT_EVENT, noted),
        (_INSERT_OUTBOX, noted),
        *_reserved(jobs),
    )  # fmt: skip
    return written


def places(jobs: Sequence[NewJob], held: Mapping[str, lanes.Held], open_seconds: float) -> list[Written]:
    """Each job's place in its lane; `held` are the lanes before these jobs enter."""
    ahead: dict[str, tuple[int, float]] = {}
    found: list[Written] = []
    for job in jobs:
        lane = held.get(job.account_id)
        if lane is None:
            raise LookupError("an account without a lane")
        count, cost = ahead.get(job.account_id, (0, 0.0))
        found.append(
            Written(
                lane.entered + count + 1,
                lane.entered_cost + cost + job.cost,
                lane.queued + count,
                lane.queued_cost + cost,
                open_seconds,
            )
        )
        ahead[job.account_id] = (count + 1, cost + job.cost)
    return found


async def _entered(tx: Tx, jobs: Sequence[NewJob], ground: _Ground) -> tuple[Part, Part]:
    """One change a lane and need."""
    counts: dict[str, tuple[int, float]] = {}
    needs: dict[tuple[str, str], int] = {}
    for job in jobs:
        count, cost = counts.get(job.account_id, (0, 0.0))
        counts[job.account_id] = (count + 1, cost + job.cost)
        needs[job.account_id, job.requirement.id] = needs.get((job.account_id, job.requirement.id), 0) + 1
    arriving: dict[str, set[str]] = {}
    for account, need in needs:
        arriving.setdefault(account, set()).add(need)
    vtimes = await lanes.joined(
        tx, [(ground.held[account], wanted) for account, wanted in arriving.items()], ground.edge
    )
    changes = [
        lanes.change(
            account, vtime=vtimes[account], queued=count, cost=cost, entered=count, entered_cost=cost
        )
        for account, (count, cost) in sorted(counts.items())
    ]
    needed = [lanes.need(account, need, count) for (account, need), count in sorted(needs.items())]
    return (lanes.CHANGE, changes), (lanes.NEED, needed)


def _reserved(jobs: Sequence[NewJob]) -> tuple[Part, Part]:
    """The quota ledger: a line a job, sums once an account and day."""
    sums: dict[tuple[str, str], int] = {}
    rows = []
    for job in jobs:
        day = utc_day(job.queued_at)
        rows.append({"job": job.id, "account": job.account_id, "day": day, "images": job.images})
        sums[job.account_id, day] = sums.get((job.account_id, day), 0) + job.images
    return (
        "INSERT INTO ledger (job_id, account_id, day, reserved) VALUES (:job, :account, :day, :images)", rows
    ), (
        """INSERT INTO usage_days (account_id, day, reserved) VALUES (:account, :day, :images)
           ON CONFLICT (account_id, day) DO UPDATE SET reserved = usage_days.reserved + excluded.reserved""",
        [{"account": account, "day": day, "images": images} for (account, day), images in sorted(sums.items())],
    )  # fmt: skip


def _pinned(jobs: Sequence[NewJob]) -> list[Part]:
    """What keeps the uploads of jobs until these end; no statement if there are none."""
    pins = {(job.id, one.upload_id) for job in jobs for one in job.inputs}
    rows = [{"job": job_id, "upload": upload_id} for job_id, upload_id in sorted(pins)]
    return [("INSERT INTO job_uploads (job_id, upload_id) VALUES (:job, :upload)", rows)] if rows else []


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
        "labels": dumps(dict(options.labels)),
        "output": dumps(output_document(options.output)),
        "graph": None if job.graph is None else packed(job.graph),
        "print": job.fingerprint,
        "webhook": options.webhook_url,
        "batch": job.batch_id,
        "batch_index": job.batch_index,
        "at": job.queued_at,
        "deadline": None if options.deadline is None else job.queued_at + options.deadline,
        "retention": job.limits.retention,
        "workflow": None if job.workflow is None else job.workflow[0],
        "version": None if job.workflow is None else job.workflow[1],
        "inputs": dumps(inputs_document(job.inputs)) if job.inputs else None,
        "trace": job.trace_context,
    }


_INSERT_JOB = """INSERT INTO jobs (id, account_id, state, seq, max_attempts, priority, requirement_id, cost, ordinal,
  ordinal_cost, images, timing_key, params, labels, output, graph, fingerprint, webhook_url, batch_id, batch_index,
  queued_at, deadline_at, retention, inputs, workflow_id, workflow_version, trace_context)
VALUES (:id, :account, :state, 1, :max_attempts, :priority, :requirement, :cost, :ordinal,
  :ordinal_cost, :images, :timing_key, :params, :labels, :output, :graph, :print, :webhook, :batch, :batch_index,
  :at, :deadline, :retention, :inputs, :workflow, :version, :trace)"""

_INSERT_EVENT = (
    "INSERT INTO events (job_id, seq, type, status, at, data) VALUES (:job, 1, :type, :status, :at, '{}')"
)
_INSERT_OUTBOX = """INSERT INTO outbox (job_id, account_id, seq, type, at, handled_at)
VALUES (:job, :account, 1, :type, :at, :at)"""
"""No webhook is told that a job was queued: the entry is written as handled, so that a submission makes no work for
those who deliver.
"""
_INSERT_LABEL = (
    "INSERT INTO job_labels (job_id, account_id, key, value) VALUES (:job, :account, :key, :value)"
)
