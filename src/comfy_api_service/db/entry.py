"""The common group of new jobs on PostgreSQL: decided and written by one call of the server, which commits itself.

Equal in effect to `insertion.insert`, and only for what is common: the function (migration 0009) does nothing for a
group in which a key was used, a limit might be met or a need is gone. Such a group goes step by step.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from comfy_api_service.db.base import Tx, dumps, packed
from comfy_api_service.db.insertion import Written, places
from comfy_api_service.db.keys import KEY_SECONDS
from comfy_api_service.db.lanes import DEFAULT_COST, Held
from comfy_api_service.db.records import output_document
from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.domain.scheduling import ENTRY, WINDOW_JOBS
from comfy_api_service.domain.submission import NewJob
from comfy_api_service.domain.times import utc_day

T = TypeVar("T")

_ENTER: Final = """SELECT * FROM enter_jobs_1(
  :ids, :accounts, :needs, :keys, :prints, :queued_at, :costs, :images, :timing_keys, :priorities, :max_attempts,
  :deadlines, :retentions, :params, :labels, :outputs, :graphs, :webhooks, :workflows, :versions, :traces,
  :waiting, :per_day, :now, :day, :keys_since, :window_jobs, :default_cost, :entry)"""


def is_common(jobs: Sequence[NewJob], known_needs: Collection[str]) -> bool:
    """Whether nothing about these jobs is known to need more steps."""
    keys = [(job.account_id, job.idempotency_key) for job in jobs if job.idempotency_key is not None]
    return (
        len(set(keys)) == len(keys)
        and not any(
            job.inputs
            or job.options.dedupe
            or job.batch_id is not None
            or job.requirement.id not in known_needs
            for job in jobs
        )
        and utc_day(min([job.queued_at for job in jobs])) == utc_day(max([job.queued_at for job in jobs]))
    )


async def enter(tx: Tx, jobs: Sequence[NewJob]) -> list[Written] | None:
    """Write a common group by one statement. None: nothing was done, it is not so common after all."""
    rows = await tx.all(_ENTER, _arguments(jobs))
    if not rows:
        return None
    return places(jobs, {row["account_id"]: Held.from_row(row) for row in rows}, rows[0]["open_seconds"])


def _arguments(jobs: Sequence[NewJob]) -> dict[str, object]:
    now = jobs[0].queued_at
    limits = [job.limits for job in jobs]
    options = [job.options for job in jobs]
    workflows = [job.workflow or (None, None) for job in jobs]
    return {
        "ids": [job.id for job in jobs],
        "accounts": [job.account_id for job in jobs],
        "needs": [job.requirement.id for job in jobs],
        "keys": [job.idempotency_key for job in jobs],
        "prints": [job.fingerprint for job in jobs],
        "queued_at": [job.queued_at for job in jobs],
        "costs": [job.cost for job in jobs],
        "images": [job.images for job in jobs],
        "timing_keys": [job.timing_key for job in jobs],
        "priorities": [one.priority for one in options],
        "max_attempts": [one.max_attempts for one in options],
        "deadlines": _unless_none(
            [None if job.options.deadline is None else job.queued_at + job.options.deadline for job in jobs]
        ),
        "retentions": [one.retention for one in limits],
        "params": [dumps(job.params) for job in jobs],
        "labels": _unless_none([dumps(one.labels) if one.labels else None for one in options]),
        "outputs": [_output(one.output) for one in options],
        "graphs": [None if job.graph is None else packed(job.graph) for job in jobs],
        "webhooks": _unless_none([one.webhook_url for one in options]),
        "workflows": _unless_none([workflow_id for workflow_id, _ in workflows]),
        "versions": _unless_none([version for _, version in workflows]),
        "traces": _unless_none([job.trace_context for job in jobs]),
        "waiting": _unless_none([one.waiting for one in limits]),
        "per_day": _unless_none([one.images_per_day for one in limits]),
        "now": now,
        "day": utc_day(now),
        "keys_since": now - KEY_SECONDS,
        "window_jobs": float(WINDOW_JOBS),
        "default_cost": DEFAULT_COST,
        "entry": ENTRY,
    }


@lru_cache(maxsize=64)
def _output(options: OutputOptions) -> str:
    return dumps(output_document(options))


def _unless_none(values: list[T]) -> list[T] | None:
    """Each value that is sent costs; beside longer lists the server takes what is missing for NULL."""
    return values if any(value is not None for value in values) else None
