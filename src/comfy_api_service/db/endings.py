"""The one end of a job: state, artifacts, ledger, events, outbox, in the transaction of whoever ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_api_service.db.base import Part, Row, Tx, dumps
from comfy_api_service.db.records import JOB_COLUMNS, error_document, job_from
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.job import SHOWN, Artifact, CacheUse, Job, JobError, State


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


def deadline_error() -> JobError:
    return JobError(Code.DEADLINE_EXCEEDED, "The job was not finished by its deadline.")


def noted(account_id: str, *events: Event) -> tuple[Part, Part]:
    """Durable events with their outbox entries, numbered by their job's counter."""
    return (
        (
            """INSERT INTO events (job_id, seq, type, status, at, data)
               VALUES (:job, :seq, :type, :status, :now, :data)""",
            [
                {
                    "job": event.job_id,
                    "seq": event.seq,
                    "type": event.type,
                    "status": event.status,
                    "now": event.at,
                    "data": dumps(event.data),
                }
                for event in events
            ],
        ),
        (
            "INSERT INTO outbox (job_id, account_id, seq, type, at) VALUES (:job, :account, :seq, :type, :now)",
            [
                {
                    "job": event.job_id,
                    "account": account_id,
                    "seq": event.seq,
                    "type": event.type,
                    "now": event.at,
                }
                for event in events
                if event.type is not EventType.ARTIFACT
            ],
        ),
    )


async def end(tx: Tx, job: Row, ending: Ending, parts: Sequence[Part], *, now: float) -> Change:
    """End a job whose row and lane are held, with the ledger's line; `parts` go with it."""
    events = told(job["id"], job["seq"], ending, now)
    row = await tx.one_together(
        (
            f"""UPDATE jobs SET state = :state, seq = :seq, finished_at = :now, error = :error, results = :results,
                  cache = :cache, generation_time = :seconds, expires_at = :expires
                WHERE id = :job RETURNING {JOB_COLUMNS.replace("j.", "")}""",
            {
                "job": job["id"],
                "state": ending.state,
                "seq": events[-1].seq,
                "now": now,
                "error": None if ending.error is None else dumps(error_document(ending.error)),
                "results": dumps(ending.values),
                "cache": ending.cache,
                "seconds": ending.backend_seconds,
                "expires": _expiry(job, ending, now),
            },
        ),
        *parts,
        _kept(job, ending.artifacts),
        *noted(job["account_id"], *events),
        *_settled(job, ending, now),
    )
    if row is None:
        raise LookupError("the end of a job without a row")
    ended = job_from(row, ending.artifacts)
    return Change(job["account_id"], job["attempt"], job["queued_at"], events, ended)


def _expiry(job: Row, ending: Ending, now: float) -> float | None:
    """The job's own retention, as its account had it at the submission, goes before the worker's."""
    if ending.expires_at is None or job["retention"] is None:
        return ending.expires_at
    return now + float(job["retention"])


def told(job_id: str, seq: int, ending: Ending, now: float) -> tuple[Event, ...]:
    """One for each artifact, then the last; numbered from behind `seq`."""
    status = SHOWN[State.STORING]
    artifacts = [
        Event(job_id, seq + number, EventType.ARTIFACT, status, now, _described(artifact))
        for number, artifact in enumerate(ending.artifacts, 1)
    ]
    data: dict[str, Any] = {} if ending.error is None else {"error": error_document(ending.error)}
    return (
        *artifacts,
        Event(job_id, seq + len(artifacts) + 1, EventType.DONE, SHOWN[ending.state], now, data),
    )


def _described(artifact: Artifact) -> dict[str, Any]:
    """What is told of an artifact when it is there."""
    return {
        "index": artifact.index,
        "kind": artifact.kind,
        "media_type": artifact.media_type,
        "bytes": artifact.bytes,
    }


def _kept(job: Row, artifacts: Sequence[Artifact]) -> Part:
    return (
        """INSERT INTO artifacts (job_id, idx, attempt, node_id, kind, media_type, width, height, bytes, sha256, key,
             seed, meta)
           VALUES (:job, :idx, :attempt, :node, :kind, :media_type, :width, :height, :bytes, :sha256, :key,
             :seed, :meta)""",
        [
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
            }
            for artifact in artifacts
        ],
    )


def _settled(job: Row, ending: Ending, now: float) -> tuple[Part, ...]:
    """Charge what was produced, give back the rest; once, since who ends a job has its row."""
    if job["day"] is None or job["settled_at"] is not None:
        return ()
    seconds = ending.backend_seconds or 0.0
    return (
        (
            "UPDATE ledger SET charged = :charged, gpu_seconds = :seconds, settled_at = :now WHERE job_id = :job",
            {"job": job["id"], "charged": ending.produced, "seconds": seconds, "now": now},
        ),
        (
            """UPDATE usage_days SET reserved = reserved - :reserved, charged = charged + :charged,
                 gpu_seconds = gpu_seconds + :seconds WHERE account_id = :account AND day = :day""",
            {
                "account": job["account_id"],
                "day": job["day"],
                "reserved": job["reserved"],
                "charged": ending.produced,
                "seconds": seconds,
            },
        ),
    )
