"""A job's start and its end on PostgreSQL: the common ones, by one call of the server that commits itself.

Equal in effect to `transitions.started` and `transitions.finish`, and only for what is common: the functions (migration
0012) do nothing for an attempt that was replaced, a job that was canceled or is late. Such a one goes step by step.
"""

from collections.abc import Mapping
from typing import Final

from comfy_api_service.db.base import Tx, dumps
from comfy_api_service.db.endings import Change, Ending, told
from comfy_api_service.db.lanes import DEFAULT_COST
from comfy_api_service.db.records import JOB_COLUMNS, error_document, job_from
from comfy_api_service.db.timings import SLOWEST
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.job import SHOWN, State
from comfy_api_service.domain.scheduling import ENTRY, WINDOW_JOBS

_START: Final = "SELECT * FROM start_job_1(:job, :attempt, :worker, :now, :data)"
_FINISH: Final = f"""SELECT {JOB_COLUMNS} FROM finish_job_1(
  :job, :attempt, :worker, :now, :state, :status, :error, :results, :cache, :produced, :seconds, :expires, :outcome,
  :data, :indices, :nodes, :kinds, :media_types, :widths, :heights, :bytes, :hashes, :keys, :seeds, :metas, :told,
  :measured, :durations, :window_jobs, :default_cost, :entry, :newest) AS j"""


async def started(tx: Tx, fence: Fence, *, now: float) -> Change | None:
    """The prompt executes on the backend. None: nothing was done, it is not so common after all."""
    data = {"attempt": fence.attempt}
    row = await tx.one(_START, {**_speaking(fence, now), "data": dumps(data)})
    if row is None:
        return None
    event = Event(fence.job_id, row["seq"], EventType.RUNNING, SHOWN[State.EXECUTING], now, data)
    return Change(row["account_id"], fence.attempt, row["queued_at"], (event,))


async def finish(
    tx: Tx, fence: Fence, ending: Ending, *, now: float, measured: Mapping[str, float] | None = None
) -> Change | None:
    """The end of a job. None: nothing was done, it is not so common after all."""
    row = await tx.one(_FINISH, _arguments(fence, ending, now, measured or {}))
    if row is None:
        return None
    events = told(fence.job_id, row["seq"] - len(ending.artifacts) - 1, ending, now)
    return Change(row["account_id"], fence.attempt, row["queued_at"], events, job_from(row, ending.artifacts))


def _speaking(fence: Fence, now: float) -> dict[str, object]:
    return {"job": fence.job_id, "attempt": fence.attempt, "worker": fence.worker_id, "now": now}


def _arguments(fence: Fence, ending: Ending, now: float, measured: Mapping[str, float]) -> dict[str, object]:
    artifacts = ending.artifacts
    *each, last = told(fence.job_id, 0, ending, now)
    return {
        **_speaking(fence, now),
        "state": ending.state,
        "status": last.status,
        "error": None if ending.error is None else dumps(error_document(ending.error)),
        "results": dumps(ending.values),
        "cache": ending.cache,
        "produced": ending.produced,
        "seconds": ending.backend_seconds,
        "expires": ending.expires_at,
        "outcome": ending.outcome,
        "data": dumps(last.data),
        "indices": [one.index for one in artifacts],
        "nodes": [one.node_id for one in artifacts],
        "kinds": [one.kind for one in artifacts],
        "media_types": [one.media_type for one in artifacts],
        "widths": [one.width for one in artifacts],
        "heights": [one.height for one in artifacts],
        "bytes": [one.bytes for one in artifacts],
        "hashes": [one.sha256 for one in artifacts],
        "keys": [one.key for one in artifacts],
        "seeds": [None if one.seed is None else str(one.seed) for one in artifacts],
        "metas": [dumps(one.meta) for one in artifacts],
        "told": [dumps(one.data) for one in each],
        "measured": sorted(measured),
        "durations": [measured[key] for key in sorted(measured)],
        "window_jobs": float(WINDOW_JOBS),
        "default_cost": DEFAULT_COST,
        "entry": ENTRY,
        "newest": SLOWEST,
    }
