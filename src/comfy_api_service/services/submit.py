"""Submit: from an order to a durable job. Compiled, checked and priced here; written by the batcher."""

import hashlib
import secrets
from collections.abc import Callable

from comfy_api_service.db.allowances import QuotaSpent, WaitingFull
from comfy_api_service.db.base import Database
from comfy_api_service.db.insertion import KeyReused, Outcome, QueueFull, Replay, Written
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.compilation import Compiled, compile_generation
from comfy_api_service.domain.errors import Code, Conflict, Refused, ServiceError
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.ids import new_job_id
from comfy_api_service.domain.job import TERMINAL, Status
from comfy_api_service.domain.params import generation_from
from comfy_api_service.domain.submission import Accepted, JobOptions, NewJob, Order
from comfy_api_service.domain.times import iso, next_utc_day
from comfy_api_service.services.estimates import place, price
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.pool import Pool
from comfy_api_service.signals.base import Note, Signals
from comfy_api_service.telemetry import Metrics

QUEUE_FULL_RETRY_SECONDS = 30.0


class Submitter:
    def __init__(
        self,
        db: Database,
        submissions: Submissions,
        pool: Pool,
        jobs: Jobs,
        signals: Signals,
        clock: Clock,
        metrics: Metrics,
        *,
        default_model: str | None = None,
        seed_source: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._db = db
        self._submissions = submissions
        self._pool = pool
        self._jobs = jobs
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._default_model = default_model
        self._seed_source = seed_source

    async def submit(self, account: Account, order: Order) -> Accepted:
        """Durable when it returns.

        Raises `Refused` (MODEL_NOT_FOUND, NODE_NOT_AVAILABLE, IDEMPOTENCY_KEY_REUSED) and `ServiceError`
        (QUEUE_LIMIT_EXCEEDED, QUOTA_EXCEEDED, with Retry-After); then nothing was queued.
        """
        new = self.prepare(account, order)
        outcome = await self._submissions.add(new)
        if isinstance(outcome, Written):
            return self._written(account, new, outcome)
        if isinstance(outcome, Replay):
            view = await self._jobs.get(account, outcome.job_id)
            return Accepted(
                view.job.id,
                view.job.status,
                view.job.queued_at,
                view.place,
                replayed=outcome.by_key,
                deduplicated=not outcome.by_key,
            )
        self.count_limit(outcome)
        raise refusal(outcome, new.queued_at)

    async def retry(self, account: Account, job_id: str, *, idempotency_key: str | None = None) -> Accepted:
        """A new job from a finished one, with the same parameters, seed included."""
        job = (await self._jobs.get(account, job_id)).job
        if job.state not in TERMINAL:
            raise Conflict(
                "The job is not finished; only a finished one can be run again.", status=job.status
            )
        options = JobOptions(
            priority=job.priority, max_attempts=job.max_attempts, labels=job.labels, output=job.output
        )
        body = f"retry:{job_id}".encode()
        return await self.submit(account, Order(generation_from(job.params), options, body, idempotency_key))

    def prepare(self, account: Account, order: Order) -> NewJob:
        """The order as a job to be written. Raises `Refused` (MODEL_NOT_FOUND, NODE_NOT_AVAILABLE)."""
        pool = self._pool.view
        compiled = compile_generation(
            order.generation, pool.catalogue, default_model=self._default_model, seed_source=self._seed_source
        )
        self._check_servable(compiled)
        return NewJob(
            id=new_job_id(),
            account_id=account.id,
            requirement=compiled.requirement,
            graph=compiled.graph,
            params=compiled.params,
            options=order.options,
            images=compiled.images,
            cost=price(compiled.timing_key, compiled.requirement.primary, compiled.pixel_steps, pool.timings),
            timing_key=compiled.timing_key,
            queued_at=self._clock.now(),
            fingerprint=hashlib.sha256(order.body).hexdigest()[:32],
            idempotency_key=order.idempotency_key,
            batch_id=order.batch_id,
            batch_index=order.batch_index,
            limits=account.limits,
        )

    def _check_servable(self, compiled: Compiled) -> None:
        """Some one backend must have all that the graph needs; says which lacks what."""
        pool = self._pool.view
        if not pool.inventories or compiled.graph is None:
            return
        lacking = {}
        for backend in pool.backends:
            inventory = pool.inventories.get(backend.inventory_hash or "")
            if inventory is None:
                continue
            lacks = inventory.lacks(compiled.requirement)
            if not lacks:
                return
            lacking[backend.name] = lacks
        nodes = sorted({node for lacks in lacking.values() for node in lacks.nodes})
        details = {
            "backends": [
                {"backend": name, "nodes": list(lacks.nodes), "models": [f"{m.kind}/{m.name}" for m in lacks.models]}
                for name, lacks in sorted(lacking.items())
            ]
        }  # fmt: skip
        if any(not lacks.models for lacks in lacking.values()) and nodes:
            raise Refused(Code.NODE_NOT_AVAILABLE, f"No backend has: {', '.join(nodes)}.", details=details)
        raise Refused(Code.MODEL_NOT_FOUND, "No single backend has all that this needs.", details=details)

    def announce(self, new: NewJob) -> None:
        """Say that the job is on the disk."""
        self._signals.wake()
        self._metrics.jobs_created.inc()
        event = Event(new.id, 1, EventType.QUEUED, Status.QUEUED, new.queued_at)
        self._signals.publish(Note(new.id, new.account_id, 0, event))

    def count_limit(self, outcome: Outcome) -> None:
        """For the figures, if a limit of the account is why the job was not taken."""
        if isinstance(outcome, WaitingFull | QuotaSpent):
            self._metrics.limited.labels("waiting" if isinstance(outcome, WaitingFull) else "images").inc()

    def _written(self, account: Account, new: NewJob, written: Written) -> Accepted:
        self.announce(new)
        where = place(
            self._pool.view,
            now=new.queued_at,
            weight=account.limits.weight,
            ahead=written.ahead,
            ahead_cost=written.ahead_cost,
            open_seconds=written.open_seconds,
        )
        return Accepted(new.id, Status.QUEUED, new.queued_at, where)


def refusal(outcome: KeyReused | QueueFull | WaitingFull | QuotaSpent, now: float) -> ServiceError:
    """What the caller is told of a job that was not taken."""
    match outcome:
        case KeyReused():
            return Refused(Code.IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used with another request.")
        case QueueFull(waiting=waiting):
            return ServiceError(
                Code.QUEUE_LIMIT_EXCEEDED,
                "Too many jobs are waiting.",
                details={"waiting": waiting},
                retry_after=QUEUE_FULL_RETRY_SECONDS,
            )
        case WaitingFull(waiting=waiting, limit=limit):
            return ServiceError(
                Code.QUEUE_LIMIT_EXCEEDED,
                "As many jobs of this account wait as may.",
                details={"waiting": waiting, "limit": limit},
                retry_after=QUEUE_FULL_RETRY_SECONDS,
            )
        case QuotaSpent(used=used, limit=limit, images=images):
            reset = next_utc_day(now)
            return ServiceError(
                Code.QUOTA_EXCEEDED,
                "The images of this day do not suffice for this.",
                details={"limit": limit, "used": used, "requested": images, "reset_at": iso(reset)},
                retry_after=reset - now,
            )
