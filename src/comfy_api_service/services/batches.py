"""Several requests in one call: each valid or refused on its own, each counted as a submission."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfy_api_service.db import batches as rows
from comfy_api_service.db import insertion
from comfy_api_service.db import jobs as job_rows
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.db.insertion import KeyReused, Outcome, Replay, Written
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import NotFound, ServiceError
from comfy_api_service.domain.ids import new_batch_id
from comfy_api_service.domain.job import Job
from comfy_api_service.domain.submission import NewBatch, NewJob, Order
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.submit import Submitter, refusal
from comfy_api_service.services.views import Batch, BatchItem

LIMIT = 10
"""Most requests in a batch."""


class Batches:
    def __init__(
        self, db: Database, submitter: Submitter, jobs: Jobs, clock: Clock, *, queue_limit: int
    ) -> None:
        self._db = db
        self._submitter = submitter
        self._jobs = jobs
        self._clock = clock
        self._queue_limit = queue_limit

    async def submit(
        self,
        account: Account,
        orders: Sequence[Order | ServiceError],
        *,
        body: bytes,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Write the batch with all its jobs in one transaction; what was refused is kept with its error.

        `body` is the canonical form of the whole call. A batch of which nothing was taken leaves its key free.
        Raises `Refused` (IDEMPOTENCY_KEY_REUSED).
        """
        batch = NewBatch(
            id=new_batch_id(),
            account_id=account.id,
            created_at=self._clock.now(),
            total=len(orders),
            fingerprint=hashlib.sha256(body).hexdigest()[:32],
            idempotency_key=idempotency_key,
        )
        jobs: dict[int, NewJob] = {}
        refused: dict[int, Mapping[str, Any]] = {}
        for index, order in enumerate(orders):
            prepared = await self._prepare(account, batch.id, index, order)
            if isinstance(prepared, NewJob):
                jobs[index] = prepared
            else:
                refused[index] = {"error": error_document(prepared)}

        async def write(tx: Tx) -> str | KeyReused | list[Outcome]:
            earlier = await rows.take_key(tx, batch)
            if earlier is not None:
                return earlier
            await rows.insert(tx, batch)
            outcomes = await insertion.insert(tx, list(jobs.values()), queue_limit=self._queue_limit)
            others = {**refused, **_others(dict(zip(jobs, outcomes, strict=True)), batch.created_at)}
            await rows.note_others(tx, batch, others)
            if all("error" in others.get(index, {}) for index in range(batch.total)):
                await rows.give_key_back(tx, batch)
            return outcomes

        outcome = await self._db.write(write)
        if isinstance(outcome, KeyReused):
            raise refusal(outcome, batch.created_at)
        if isinstance(outcome, str):
            return replace(await self.get(account, outcome), replayed=True)
        for job, one in zip(jobs.values(), outcome, strict=True):
            if isinstance(one, Written):
                self._submitter.announce(job)
            else:
                self._submitter.count_limit(one)
        return await self.get(account, batch.id)

    async def _prepare(
        self, account: Account, batch_id: str, index: int, order: Order | ServiceError
    ) -> NewJob | ServiceError:
        if isinstance(order, ServiceError):
            return order
        try:
            return await self._submitter.prepare(
                account, order._replace(batch_id=batch_id, batch_index=index)
            )
        except ServiceError as fault:
            return fault

    async def get(self, account: Account, batch_id: str) -> Batch:
        """The batch with its jobs as they are now; `NotFound` if absent or somebody else's."""
        head = await self._db.read(lambda tx: rows.get(tx, account.id, batch_id))
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


def _others(outcomes: Mapping[int, Outcome], now: float) -> dict[int, Mapping[str, Any]]:
    """What to keep of requests that made no job of their own: why they were refused, or the job merged into."""
    others: dict[int, Mapping[str, Any]] = {}
    for index, outcome in outcomes.items():
        if isinstance(outcome, Replay):
            others[index] = {"job_id": outcome.job_id}
        elif not isinstance(outcome, Written):
            others[index] = {"error": error_document(refusal(outcome, now))}
    return others


def error_document(error: ServiceError) -> Mapping[str, Any]:
    """A refusal as it stands in a batch."""
    return {"code": error.code, "message": error.message, "details": dict(error.details)}
