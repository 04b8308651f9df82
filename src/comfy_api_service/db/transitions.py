"""What becomes of an attempt. Every write is fenced: it touches a row only while the attempt is the job's own.

A function that returns None met a fence: somebody replaced the caller, who must stop, change nothing more
and remove what it posted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_api_service.db import jobs, lanes
from comfy_api_service.db.base import Row, Tx, dumps, packed
from comfy_api_service.db.records import error_document
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.job import SHOWN, Artifact, CacheUse, Job, JobError, State

REFUSALS = 5
"""Attempts beyond `max_attempts` that backends may answer with errors of their own before it is enough."""
POISON_AFTER = 2
"""A job that took this many backends down with it is not run again."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The attempt that a write speaks for."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt, and with it its job, ended. Times are seconds since the epoch, durations seconds."""

    state: State
    artifacts: Sequence[Artifact] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    error: JobError | None = None
    cache: CacheUse | None = None
    produced: int = 0
    """Pictures to charge for."""
    backend_seconds: float | None = None
    """From the start of the prompt on the backend to its end."""
    expires_at: float | None = None
    outcome: str = "done"


@dataclass(frozen=True, slots=True)
class Change:
    """Durable events of a committed transition, to be announced after the commit."""

    account_id: str
    attempt: int
    queued_at: float
    events: tuple[Event, ...]
    job: Job | None = None
    """The job at its end, where this was the end."""


_FENCED = """SELECT id, account_id, state, seq, attempt, executed, max_attempts, backends_killed, out_of_memory, cost,
  images,  requirement_id, deadline_at, cancel_requested_at, queued_at, started_at
FROM jobs WHERE id = :job AND attempt = :attempt AND state IN ('dispatched', 'executing', 'storing')"""


async def _hold(tx: Tx, fence: Fence) -> Row | None:
    return await tx.one(_FENCED + tx.dialect.for_update, {"job": fence.job_id, "attempt": fence.attempt})


async def started(tx: Tx, fence: Fence, *, now: float) -> Change | None:
    """The prompt executes on the backend."""
    job = await _hold(tx, fence)
    if job is None:
        return None
    if job["state"] != State.DISPATCHED:
        return Change(job["account_id"], fence.attempt, job["queued_at"], ())
    await tx.run(
        """UPDATE jobs SET state = 'executing', executed = executed + 1, started_at = coalesce(started_at, :now)
           WHERE id = :job""",
        {"job": fence.job_id, "now": now},
    )
    await tx.run(
        "UPDATE attempts SET executing_at = :now WHERE job_id = :job AND number = :attempt",
        {"job": fence.job_id, "attempt": fence.attempt, "now": now},
    )
    event = await note(tx, job, EventType.RUNNING, State.EXECUTING, now, {"attempt": fence.attempt})
    return Change(job["account_id"], fence.attempt, job["queued_at"], (event,))


async def storing(tx: Tx, fence: Fence) -> bool:
    """The backend is done; the account's slot is given back while the result is stored. False: fenced."""
    job = await _hold(tx, fence)
    if job is None:
        return False
    if job["state"] != State.STORING:
        await tx.run("UPDATE jobs SET state = 'storing' WHERE id = :job", {"job": fence.job_id})
        await lanes.release_slot(tx, job["account_id"])
    return True


async def finish(tx: Tx, fence: Fence, ending: Ending, *, now: float) -> Change | None:
    """The one end of a job that had an attempt: artifacts, state, ledger, events, outbox, counters."""
    job = await _hold(tx, fence)
    if job is None:
        return None
    ending = _overruled(job, ending, now)
    if job["state"] != State.STORING:
        await lanes.release_slot(tx, job["account_id"])
    await _close_attempt(tx, fence, ending.outcome, now)
    if ending.backend_seconds is not None:
        await lanes.correct(tx, job["account_id"], seconds=ending.backend_seconds - job["cost"])
    elif job["state"] == State.DISPATCHED:
        await lanes.correct(tx, job["account_id"], seconds=-job["cost"])
    return await _end(tx, job, ending, now=now)


def _overruled(job: Row, ending: Ending, now: float) -> Ending:
    """A cancel that was committed first wins, whatever came of the prompt; so does a deadline that has passed."""
    if job["cancel_requested_at"] is not None and ending.state is not State.CANCELED:
        charge = job["images"] if job["executed"] else 0
        return Ending(
            State.CANCELED, produced=charge, backend_seconds=ending.backend_seconds, outcome="canceled"
        )
    late = job["deadline_at"] is not None and job["deadline_at"] <= now
    if late and ending.state is State.SUCCEEDED:
        return Ending(
            State.FAILED,
            error=deadline_error(),
            backend_seconds=ending.backend_seconds,
            outcome="deadline",
        )
    return ending


async def give_up(tx: Tx, job_id: str, ending: Ending, *, now: float) -> Change | None:
    """End a job that is ready, without an attempt: canceled, past its deadline, unservable."""
    job = await tx.one(
        """SELECT id, account_id, state, seq, attempt, cost, images, requirement_id, queued_at, started_at
           FROM jobs WHERE id = :job AND state = 'ready'"""
        + tx.dialect.for_update,
        {"job": job_id},
    )
    if job is None:
        return None
    await lanes.leave(tx, job["account_id"], job["requirement_id"], cost=job["cost"])
    return await _end(tx, job, ending, now=now)


async def requeue(
    tx: Tx,
    fence: Fence,
    *,
    reason: str,
    now: float,
    backend_died: bool = False,
    out_of_memory: JobError | None = None,
    unsent: bool = False,
    refused: bool = False,
    requirement_id: str | None = None,
) -> Change | None:
    """An attempt was lost: the job is ready again, or ends, by cancel mark, deadline, poison or exhaustion.

    `unsent`: nothing was ever posted, so the attempt tells nothing about the job. `refused`: the backend
    answered the post with an error of its own; that does not go on for ever. `out_of_memory`: the
    backend's memory did not suffice; the second time this error ends the job.
    """
    job = await _hold(tx, fence)
    if job is None:
        return None
    executing = job["state"] != State.DISPATCHED
    killed = job["backends_killed"] + (1 if backend_died and executing else 0)
    exhausted = not unsent and job["executed"] >= job["max_attempts"]
    exhausted |= refused and job["attempt"] >= job["max_attempts"] + REFUSALS
    ending = _last_word(job, killed=killed, now=now, exhausted=exhausted, out_of_memory=out_of_memory)
    if ending is not None:
        return await finish(tx, fence, ending, now=now)
    if job["state"] != State.STORING:
        await lanes.release_slot(tx, job["account_id"])
    await lanes.correct(tx, job["account_id"], seconds=-job["cost"])
    await _close_attempt(tx, fence, reason, now)
    need = requirement_id or job["requirement_id"]
    await tx.run(
        """UPDATE jobs SET state = 'ready', backend_id = NULL, backends_killed = :killed,
           out_of_memory = out_of_memory + :oom, requirement_id = :need WHERE id = :job""",
        {"job": fence.job_id, "killed": killed, "oom": int(out_of_memory is not None), "need": need},
    )
    await lanes.enter(tx, job["account_id"], need, jobs=1, cost=job["cost"], arrived=False)
    if unsent:
        return Change(job["account_id"], fence.attempt, job["queued_at"], ())
    data = {"reason": reason, "attempt": fence.attempt}
    event = await note(tx, job, EventType.REQUEUED, State.READY, now, data)
    return Change(job["account_id"], fence.attempt, job["queued_at"], (event,))


def _last_word(
    job: Row, *, killed: int, now: float, exhausted: bool, out_of_memory: JobError | None
) -> Ending | None:
    """Why a lost attempt is the job's last, if it is."""
    if job["cancel_requested_at"] is not None:
        charge = job["images"] if job["executed"] else 0
        return Ending(State.CANCELED, produced=charge, outcome="canceled")
    if job["deadline_at"] is not None and job["deadline_at"] <= now:
        return Ending(State.FAILED, error=deadline_error(), outcome="deadline")
    if out_of_memory is not None and (job["out_of_memory"] or exhausted):
        return Ending(State.FAILED, error=out_of_memory, outcome="out of memory")
    if killed >= POISON_AFTER:
        error = JobError(Code.POISON_JOB, f"{killed} backends died while they ran this job.")
        return Ending(State.FAILED, error=error, outcome="poison")
    if exhausted:
        error = JobError(
            Code.ATTEMPTS_EXHAUSTED,
            f"All {job['max_attempts']} attempts were lost.",
            {"attempts": job["attempt"]},
        )
        return Ending(State.FAILED, error=error, outcome="exhausted")
    return None


def deadline_error() -> JobError:
    return JobError(Code.DEADLINE_EXCEEDED, "The job was not finished by its deadline.")


async def keep_compiled(
    tx: Tx,
    fence: Fence,
    *,
    requirement_id: str,
    graph: Graph,
    params: Mapping[str, Any],
    images: int,
    timing_key: str,
) -> bool:
    """Store the graph of a job that was accepted before any inventory was known. False: fenced."""
    touched = await tx.run(
        """UPDATE jobs SET graph = :graph, params = :params, images = :images, timing_key = :timing,
             requirement_id = :need
           WHERE id = :job AND attempt = :attempt AND state IN ('dispatched', 'executing', 'storing')""",
        {"job": fence.job_id, "attempt": fence.attempt, "graph": packed(graph), "params": dumps(params),
         "images": images, "timing": timing_key, "need": requirement_id},
    )  # fmt: skip
    return touched == 1


async def note(
    tx: Tx, job: Row, event_type: EventType, state: State, now: float, data: Mapping[str, Any]
) -> Event:
    """One durable event, with its outbox entry, numbered by the job's own counter."""
    row = await tx.one("UPDATE jobs SET seq = seq + 1 WHERE id = :job RETURNING seq", {"job": job["id"]})
    if row is None:
        raise LookupError("an event of a job without a row")
    event = Event(job["id"], row["seq"], event_type, SHOWN[state], now, data)
    await tx.run(
        """INSERT INTO events (job_id, seq, type, status, at, data)
           VALUES (:job, :seq, :type, :status, :now, :data)""",
        {
            "job": event.job_id,
            "seq": event.seq,
            "type": event.type,
            "status": event.status,
            "now": now,
            "data": dumps(data),
        },
    )
    if event_type is not EventType.ARTIFACT:
        await tx.run(
            """INSERT INTO outbox (job_id, account_id, seq, type, at)
               VALUES (:job, :account, :seq, :type, :now)""",
            {
                "job": event.job_id,
                "account": job["account_id"],
                "seq": event.seq,
                "type": event_type,
                "now": now,
            },
        )
    return event


async def _close_attempt(tx: Tx, fence: Fence, outcome: str, now: float) -> None:
    await tx.run(
        """UPDATE attempts SET outcome = :outcome, closed_at = :now
           WHERE job_id = :job AND number = :attempt AND closed_at IS NULL""",
        {"job": fence.job_id, "attempt": fence.attempt, "outcome": outcome, "now": now},
    )


async def _end(tx: Tx, job: Row, ending: Ending, *, now: float) -> Change:
    await tx.run(
        """UPDATE jobs SET state = :state, finished_at = :now, error = :error, results = :results, cache = :cache,
           generation_time = :seconds, expires_at = :expires WHERE id = :job""",
        {
            "job": job["id"],
            "state": ending.state,
            "now": now,
            "error": None if ending.error is None else dumps(error_document(ending.error)),
            "results": dumps(ending.values),
            "cache": ending.cache,
            "seconds": ending.backend_seconds,
            "expires": ending.expires_at,
        },
    )
    noted = [await _keep_artifact(tx, job, artifact, now) for artifact in ending.artifacts]
    await _settle(tx, job, ending, now)
    data: dict[str, Any] = {} if ending.error is None else {"error": error_document(ending.error)}
    done = await note(tx, job, EventType.DONE, ending.state, now, data)
    ended = await jobs.get(tx, job["account_id"], job["id"])
    return Change(job["account_id"], job["attempt"], job["queued_at"], (*noted, done), ended)


async def _keep_artifact(tx: Tx, job: Row, artifact: Artifact, now: float) -> Event:
    await tx.run(
        """INSERT INTO artifacts (job_id, idx, attempt, node_id, kind, media_type, width, height, bytes, sha256, key,
             seed, meta)
           VALUES (:job, :idx, :attempt, :node, :kind, :media_type, :width, :height, :bytes, :sha256, :key,
             :seed, :meta)""",
        {
            "job": job["id"],
            "idx": artifact.index,
            "attempt": job["attempt"],
            "node": artifact.node_id,
            "kind": artifact.kind,
            "media_type": artifact.media_type,
            "width": artifact.width,
            "height": artifact.height,
            "bytes": artifact.bytes,
            "sha256": artifact.sha256,
            "key": artifact.key,
            "seed": None if artifact.seed is None else str(artifact.seed),
            "meta": dumps(artifact.meta),
        },
    )
    data = {
        "index": artifact.index,
        "kind": artifact.kind,
        "media_type": artifact.media_type,
        "bytes": artifact.bytes,
    }
    return await note(tx, job, EventType.ARTIFACT, State.STORING, now, data)


async def _settle(tx: Tx, job: Row, ending: Ending, now: float) -> None:
    """Charge what was produced, give back the rest; once, since the ledger's line is settled once."""
    seconds = ending.backend_seconds or 0.0
    line = await tx.one(
        """UPDATE ledger SET charged = :charged, gpu_seconds = :seconds, settled_at = :now
           WHERE job_id = :job AND settled_at IS NULL RETURNING day, reserved""",
        {"job": job["id"], "charged": ending.produced, "seconds": seconds, "now": now},
    )
    if line is None:
        return
    await tx.run(
        """UPDATE usage_days SET reserved = reserved - :reserved, charged = charged + :charged,
           gpu_seconds = gpu_seconds + :seconds WHERE account_id = :account AND day = :day""",
        {
            "account": job["account_id"],
            "day": line["day"],
            "reserved": line["reserved"],
            "charged": ending.produced,
            "seconds": seconds,
        },
    )
