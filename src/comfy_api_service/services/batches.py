"""Several requests in one call: each valid or refused on its own, each counted as a submission."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfy_api_service.db import jobs as job_rows
from comfy_api_service.db.base import Database, Reader
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import NotFound, ServiceError
from comfy_api_service.domain.ids import new_batch_id
from comfy_api_service.domain.job import Job
from comfy_api_service.domain.submission import Accepted, Order
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.submit import Submitter
from comfy_api_service.services.views import Batch, BatchItem

LIMIT = 10
"""Most requests in a batch."""


class Batches:
    def __init__(self, db: Database, submitter: Submitter, jobs: Jobs, clock: Clock) -> None:
        self._db = db
        self._submitter = submitter
        self._jobs = jobs
        self._clock = clock

    async def submit(self, account: Account, orders: Sequence[Order | ServiceError]) -> Batch:
        """Write the batch, then its jobs together; what was refused is kept with its error."""
        batch_id = new_batch_id()
        now = self._clock.now()
        refused = {
            str(n): {"error": error_document(one)}
            for n, one in enumerate(orders)
            if isinstance(one, ServiceError)
        }
        await self._db.write(
            lambda tx: job_rows.insert_batch(
                tx, account.id, batch_id, total=len(orders), others=refused, now=now
            )
        )
        outcomes = await asyncio.gather(
            *(self._one(account, batch_id, index, order) for index, order in enumerate(orders))
        )
        others = {str(n): other for n, one in enumerate(outcomes) if (other := _other(one)) is not None}
        if others != refused:
            await self._db.write(lambda tx: job_rows.update_batch(tx, account.id, batch_id, others=others))
        accepted = [one for one in outcomes if isinstance(one, Accepted)]
        views = iter(await self._jobs.views(account, [one.job for one in accepted]))
        return Batch(
            batch_id,
            now,
            tuple(
                BatchItem(index, None, error_document(one))
                if isinstance(one, ServiceError)
                else BatchItem(index, replace(next(views), place=one.place), None)
                for index, one in enumerate(outcomes)
            ),
        )

    async def _one(
        self, account: Account, batch_id: str, index: int, order: Order | ServiceError
    ) -> Accepted | ServiceError:
        if isinstance(order, ServiceError):
            return order
        try:
            return await self._submitter.submit(account, replace(order, batch_id=batch_id, batch_index=index))
        except ServiceError as refusal:
            return refusal

    async def get(self, account: Account, batch_id: str) -> Batch:
        """The batch with its jobs as they are now; `NotFound` if absent or somebody else's."""
        head = await self._db.read(lambda tx: job_rows.batch(tx, account.id, batch_id))
        if head is None:
            raise NotFound("batch")
        total, others, created_at = head
        earlier = {index: other["job_id"] for index, other in others.items() if "job_id" in other}

        async def read(tx: Reader) -> dict[int, Job]:
            found = dict(await job_rows.of_batch(tx, account.id, batch_id))
            merged = await job_rows.many(tx, account.id, sorted(earlier.values())) if earlier else {}
            return found | {int(n): merged[one] for n, one in earlier.items() if one in merged}

        jobs = await self._db.read(read)
        views = dict(zip(jobs, await self._jobs.views(account, list(jobs.values())), strict=True))
        items = tuple(
            BatchItem(
                index,
                views.get(index),
                others.get(str(index), {}).get("error"),
            )
            for index in range(total)
            if index in views or "error" in others.get(str(index), {})
        )
        return Batch(batch_id, created_at, items)


def _other(outcome: Accepted | ServiceError) -> Mapping[str, Any] | None:
    """What to keep of a request that made no job of its own: why it was refused, or the job it was merged into."""
    if isinstance(outcome, ServiceError):
        return {"error": error_document(outcome)}
    merged = outcome.replayed or outcome.deduplicated
    return {"job_id": outcome.job.id} if merged else None


def error_document(error: ServiceError) -> Mapping[str, Any]:
    """A refusal as it stands in a batch."""
    return {"code": error.code, "message": error.message, "details": dict(error.details)}
