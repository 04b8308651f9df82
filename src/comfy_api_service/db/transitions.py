"""What becomes of an attempt. Every write is fenced: it touches a row only while the attempt is the job's own.

A function that returns None met a fence: somebody replaced the caller, who must stop, change nothing more
and remove what it posted. Each locks what it changes with its first statement, the lane before the job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from comfy_api_service.db import jobs, lanes, timings
from comfy_api_service.db.base import Part, Row, Tx, dumps, packed
from comfy_api_service.db.endings import Change, Ending, deadline_error, end, noted
from comfy_api_service.db.records import inputs_document
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.job import SHOWN, TERMINAL, Job, JobError, State
from comfy_api_service.domain.upload import JobInput

REFUSALS: Final = 5
"""Attempts beyond `max_attempts` that backends may answer with errors of their own before it is enough."""
POISON_AFTER: Final = 2
"""A job that took this many backends down with it is not run again."""


AttemptKey = tuple[str, int]
"""A job's id and the number of its attempt."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The attempt that a write speaks for, and the worker that answers for it."""

    job_id: str
    attempt: int
    worker_id: str

    @property
    def key(self) -> AttemptKey:
        return self.job_id, self.attempt


_COLUMNS: Final = """j.id, j.account_id, j.state, j.seq, j.attempt, j.executed, j.max_attempts, j.backends_killed,
  j.out_of_memory, j.cost, j.images, j.requirement_id, j.deadline_at, j.cancel_requested_at, j.queued_at, j.retention"""
_LANE: Final = "JOIN lanes l ON l.account_id = j.account_id LEFT JOIN ledger g ON g.job_id = j.id"
_HELD: Final = f"{_COLUMNS}, {lanes.COLUMNS}, g.day, g.reserved, g.settled_at"
_MINE: Final = """JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
WHERE j.id = :job AND j.attempt = :attempt AND a.worker_id = :worker
  AND j.state IN ('dispatched', 'executing', 'storing')"""


async def _hold(tx: Tx, fence: Fence) -> Row | None:
    """Job, lane and what the ledger says, for those who change the lane's counters too."""
    return await tx.one(
        f"SELECT {_HELD} FROM jobs j {_LANE} {_MINE}" + tx.dialect.locking("l", "j", "a"),
        _params(fence),
    )


def _params(fence: Fence) -> dict[str, object]:
    return {"job": fence.job_id, "attempt": fence.attempt, "worker": fence.worker_id}


async def started(tx: Tx, fence: Fence, *, now: float) -> Change | None:
    """The prompt executes on the backend."""
    job = await tx.one(
        f"SELECT {_COLUMNS} FROM jobs j {_MINE}" + tx.dialect.locking("j", "a"),
        _params(fence),
    )
    if job is None:
        return None
    if job["state"] != State.DISPATCHED:
        return Change(job["account_id"], fence.attempt, job["queued_at"], ())
    event = _next(job, EventType.RUNNING, State.EXECUTING, now, {"attempt": fence.attempt})
    await tx.together(
        (
            """UPDATE jobs SET state = 'executing', seq = :seq, executed = executed + 1,
                 started_at = coalesce(started_at, :now) WHERE id = :job""",
            {"job": fence.job_id, "seq": event.seq, "now": now},
        ),
        (
            "UPDATE attempts SET executing_at = :now WHERE job_id = :job AND number = :attempt",
            {"job": fence.job_id, "attempt": fence.attempt, "now": now},
        ),
        *noted(job["account_id"], event),
    )
    return Change(job["account_id"], fence.attempt, job["queued_at"], (event,))


async def storing(tx: Tx, fence: Fence) -> bool:
    """The backend is done; the account's slot is given back while the result is stored. False: fenced."""
    job = await _hold(tx, fence)
    if job is None:
        return False
    if job["state"] != State.STORING:
        await tx.together(
            ("UPDATE jobs SET state = 'storing' WHERE id = :job", {"job": fence.job_id}),
            (lanes.CHANGE, await _released(tx, job, 0.0)),
        )
    return True


async def finish(
    tx: Tx, fence: Fence, ending: Ending, *, now: float, measured: Mapping[str, float] | None = None
) -> Change | None:
    """The one end of a job that had an attempt: artifacts, state, ledger, events, outbox, counters.

    `measured`: durations to learn from, in seconds by key.
    """
    job = await _hold(tx, fence)
    if job is None:
        return None
    learned = timings.learned(measured or {}, now)
    return await _finish(tx, job, _overruled(job, ending, now), now, learned)


async def _finish(tx: Tx, job: Row, ending: Ending, now: float, *parts: Part) -> Change:
    correction = 0.0
    if ending.backend_seconds is not None:
        correction = ending.backend_seconds - job["cost"]
    elif job["state"] == State.DISPATCHED:
        correction = -job["cost"]
    lane: Part = (lanes.CHANGE, await _released(tx, job, correction))
    return await end(tx, job, ending, (lane, _closed(job, ending.outcome, now), *parts), now=now)


async def _released(tx: Tx, job: Row, correction: float) -> dict[str, object]:
    """The lane without this job on a backend; one that is stored holds no slot. `correction` is in seconds of a
    backend: real less estimated.
    """
    lane = lanes.Held.from_row(job)
    running = 0 if job["state"] == State.STORING else -1
    vtime = await _freed(tx, lane) if running else lane.vtime
    return lanes.change(lane.account_id, vtime=vtime + correction / lane.weight, running=running)


async def _freed(tx: Tx, lane: lanes.Held) -> float:
    """The lane's virtual time with one job less on backends: one that was at its cap enters anew."""
    return await lanes.released(tx, lane) if lane.enters_when_released else lane.vtime


def _overruled(job: Row, ending: Ending, now: float) -> Ending:
    """A cancel that was committed first wins, whatever came of the prompt; so does a deadline that has passed."""
    if job["cancel_requested_at"] is not None and ending.state is not State.CANCELED:
        return replace(_canceled(job), backend_seconds=ending.backend_seconds)
    late = job["deadline_at"] is not None and job["deadline_at"] <= now
    if late and ending.state is State.SUCCEEDED:
        return replace(_overdue(), backend_seconds=ending.backend_seconds)
    return ending


def _canceled(job: Row) -> Ending:
    return Ending(State.CANCELED, produced=job["images"] if job["executed"] else 0, outcome="canceled")


def _overdue() -> Ending:
    return Ending(State.FAILED, error=deadline_error(), outcome="deadline")


async def give_up(tx: Tx, job_id: str, ending: Ending, *, now: float) -> Change | None:
    """End a job that is ready, without an attempt: past its deadline, unservable."""
    job = await tx.one(
        f"""SELECT {_HELD} FROM jobs j {_LANE} WHERE j.id = :job AND j.state = 'ready'"""
        + tx.dialect.locking("l", "j"),
        {"job": job_id},
    )
    return None if job is None else await _give_up(tx, job, ending, now)


async def _give_up(tx: Tx, job: Row, ending: Ending, now: float) -> Change:
    lane = lanes.change(job["account_id"], vtime=job["vtime"], queued=-1, cost=-job["cost"])
    parts = ((lanes.CHANGE, lane), *lanes.leave_need(job["account_id"], job["requirement_id"]))
    return await end(tx, job, ending, parts, now=now)


async def cancel(tx: Tx, account_id: str, job_id: str, *, now: float) -> tuple[Job | None, Change | None]:
    """End a job that waits; mark one that a backend has, so that whoever drives it stops it.

    Gives the job as it is then, None if it is absent or somebody else's, and the change if this was its end.
    """
    held = await tx.one(
        f"""SELECT {_HELD} FROM jobs j {_LANE} WHERE j.id = :job AND {jobs.OWNED}"""
        + tx.dialect.locking("l", "j"),
        {"job": job_id, "account": account_id},
    )
    if held is None:
        return None, None
    if held["state"] == State.READY:
        change = await _give_up(tx, held, Ending(State.CANCELED), now)
        return change.job, change
    if held["state"] not in TERMINAL:
        await tx.run(
            "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, :now) WHERE id = :job",
            {"job": job_id, "now": now},
        )
    return await jobs.get(tx, account_id, job_id), None


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
        return await _finish(tx, job, ending, now)
    need = requirement_id or job["requirement_id"]
    data = {"reason": reason, "attempt": fence.attempt}
    events = () if unsent else (_next(job, EventType.REQUEUED, State.READY, now, data),)
    await tx.together(
        (lanes.CHANGE, await _returned(tx, job, need)),
        (lanes.NEED, lanes.need(job["account_id"], need, 1)),
        _closed(job, reason, now),
        (
            """UPDATE jobs SET state = 'ready', seq = :seq, backend_id = NULL, backends_killed = :killed,
                 out_of_memory = out_of_memory + :oom, requirement_id = :need WHERE id = :job""",
            {
                "job": fence.job_id,
                "seq": job["seq"] + len(events),
                "killed": killed,
                "oom": int(out_of_memory is not None),
                "need": need,
            },
        ),
        *noted(job["account_id"], *events),
    )
    return Change(job["account_id"], fence.attempt, job["queued_at"], events)


async def _returned(tx: Tx, job: Row, need: str) -> dict[str, object]:
    """The lane with this job waiting again for `need`, its virtual time given back."""
    lane = lanes.Held.from_row(job)
    running = 0 if job["state"] == State.STORING else -1
    vtime = await _freed(tx, lane) if running else lane.vtime
    given_back = replace(lane, vtime=vtime - job["cost"] / lane.weight)
    (vtime,) = (await lanes.joined(tx, [(given_back, {need})])).values()
    return lanes.change(lane.account_id, vtime=vtime, running=running, queued=1, cost=job["cost"])


def _last_word(
    job: Row, *, killed: int, now: float, exhausted: bool, out_of_memory: JobError | None
) -> Ending | None:
    """Why a lost attempt is the job's last, if it is."""
    if job["cancel_requested_at"] is not None:
        return _canceled(job)
    if job["deadline_at"] is not None and job["deadline_at"] <= now:
        return _overdue()
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


async def keep_compiled(
    tx: Tx,
    fence: Fence,
    *,
    requirement_id: str,
    graph: Graph,
    params: Mapping[str, Any],
    images: int,
    timing_key: str,
    inputs: Sequence[JobInput],
) -> bool:
    """Store the graph of a job that was accepted before any inventory was known, and where its files stand in it.
    False: fenced.
    """
    touched = await tx.run(
        """UPDATE jobs SET graph = :graph, params = :params, images = :images, timing_key = :timing,
             requirement_id = :need, inputs = :inputs
           WHERE id = :job AND attempt = :attempt AND state IN ('dispatched', 'executing', 'storing')
             AND EXISTS (SELECT 1 FROM attempts a
               WHERE a.job_id = :job AND a.number = :attempt AND a.worker_id = :worker)""",
        {
            **_params(fence),
            "graph": packed(graph),
            "params": dumps(params),
            "images": images,
            "timing": timing_key,
            "need": requirement_id,
            "inputs": dumps(inputs_document(inputs)) if inputs else None,
        },
    )
    return touched == 1


def _next(job: Row, kind: EventType, state: State, now: float, data: Mapping[str, Any]) -> Event:
    """The next durable event of a job whose row is held."""
    return Event(job["id"], job["seq"] + 1, kind, SHOWN[state], now, data)


def _closed(job: Row, outcome: str, now: float) -> Part:
    return (
        """UPDATE attempts SET outcome = :outcome, closed_at = :now
           WHERE job_id = :job AND number = :attempt AND closed_at IS NULL""",
        {"job": job["id"], "attempt": job["attempt"], "outcome": outcome, "now": now},
    )
