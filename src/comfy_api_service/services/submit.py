"""Submit: from an order to a durable job. Compiled, checked and priced here; written by the batcher."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from comfy_api_service.db import jobs as rows
from comfy_api_service.db import keys
from comfy_api_service.db.allowances import QuotaSpent, WaitingFull
from comfy_api_service.db.base import Database
from comfy_api_service.db.insertion import InputsGone, KeyReused, Outcome, QueueFull, Replay, Written
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.compilation import (
    Compiled,
    compile_generation,
    compiled_graph,
    measured,
    with_uploads,
)
from comfy_api_service.domain.errors import Code, Conflict, NotFound, Refused, ServiceError
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.generation_request import GenerationRequest
from comfy_api_service.domain.ids import new_job_id
from comfy_api_service.domain.job import TERMINAL, Job, OutputOptions, Status
from comfy_api_service.domain.params import generation_from, is_of_graph, source_from
from comfy_api_service.domain.submission import (
    Accepted,
    Asked,
    Cost,
    GraphRequest,
    JobOptions,
    NewJob,
    Order,
    TemplateRequest,
)
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.domain.times import iso, next_utc_day
from comfy_api_service.domain.upload import JobInput
from comfy_api_service.services.estimates import place, price
from comfy_api_service.services.graphs import Graphs
from comfy_api_service.services.inputs import Inputs
from comfy_api_service.services.jobs import Jobs
from comfy_api_service.services.pool import Pool
from comfy_api_service.services.rules import PromptRules
from comfy_api_service.services.workflows import Workflows
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
        graphs: Graphs,
        inputs: Inputs,
        workflows: Workflows,
        signals: Signals,
        clock: Clock,
        metrics: Metrics,
        *,
        default_model: str | None = None,
        rules: PromptRules | None = None,
        check_webhook: Callable[[str], None] = lambda _: None,
        seed_source: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        """`rules`: the operator's, for texts; None if there are none. `check_webhook` raises `ValidationFailed`."""
        self._db = db
        self._submissions = submissions
        self._pool = pool
        self._jobs = jobs
        self._graphs = graphs
        self._inputs = inputs
        self._workflows = workflows
        self._signals = signals
        self._clock = clock
        self._metrics = metrics
        self._default_model = default_model
        self._rules = rules
        self._check_webhook = check_webhook
        self._seed_source = seed_source

    async def submit(self, account: Account, order: Order) -> Accepted:
        """Durable when it returns.

        Raises `Refused` (MODEL_NOT_FOUND, NODE_NOT_AVAILABLE, PROMPT_REFUSED, IDEMPOTENCY_KEY_REUSED …) and
        `ServiceError` (QUEUE_LIMIT_EXCEEDED, QUOTA_EXCEEDED, with Retry-After); then nothing was queued.
        """
        try:
            new = await self.prepare(account, order)
        except ServiceError:
            earlier = await self._earlier(account, order)
            if earlier is None:
                raise
            return earlier
        outcome = await self._submissions.add(new)
        if isinstance(outcome, Written):
            return self._written(account, new, outcome)
        if isinstance(outcome, Replay):
            return await self._replayed(account, outcome)
        self.count_limit(outcome)
        raise refusal(outcome, new.queued_at)

    async def _earlier(self, account: Account, order: Order) -> Accepted | None:
        """What the same request with the same key made, before what it names was taken away."""
        key = order.idempotency_key
        if key is None:
            return None
        now = self._clock.now()
        used = await self._db.read(lambda tx: keys.find(tx, account.id, key, now))
        if used is None or used[0] != _fingerprint(order) or not used[1].startswith("job_"):
            return None
        return await self._replayed(account, Replay(used[1], by_key=True))

    async def _replayed(self, account: Account, replay: Replay) -> Accepted:
        view = await self._jobs.get(account, replay.job_id)
        return Accepted(
            view.job.id,
            view.job.status,
            view.job.queued_at,
            view.place,
            replayed=replay.by_key,
            deduplicated=not replay.by_key,
        )

    async def retry(self, account: Account, job_id: str, *, idempotency_key: str | None = None) -> Accepted:
        """A new job from a finished one, with the same parameters, seed included, told to the same address."""
        job = (await self._jobs.get(account, job_id)).job
        if job.state not in TERMINAL:
            raise Conflict(
                "The job is not finished; only a finished one can be run again.", status=job.status
            )
        options = JobOptions(
            priority=job.priority,
            max_attempts=job.max_attempts,
            labels=job.labels,
            output=job.output,
            webhook_url=await self._db.read(lambda tx: rows.webhook_url_of(tx, account.id, job_id)),
        )
        body = f"retry:{job_id}".encode()
        return await self.submit(account, Order(await self._asked(job), options, body, idempotency_key))

    async def _asked(self, job: Job) -> Asked:
        if not is_of_graph(job.params):
            return generation_from(job.params)
        graph = await self._db.read(lambda tx: rows.graph_of(tx, job.account_id, job.id))
        graph = graph or job.params.get("graph")  # of one that no worker has compiled
        if graph is None:
            raise NotFound("job")
        return GraphRequest(graph, source_from(job.params))

    async def prepare(self, account: Account, order: Order) -> NewJob:
        """The order as a job to be written. Raises `Refused` (MODEL_NOT_FOUND, NODE_NOT_AVAILABLE, INVALID_GRAPH …)."""
        asked = order.asked
        if order.options.webhook_url is not None:
            self._check_webhook(order.options.webhook_url)
        if isinstance(asked, TemplateRequest):
            asked = await self._workflows.filled(account, asked)
        compiled = await self._compiled(account, asked)
        _check_cost(compiled, account.limits)
        inputs: tuple[JobInput, ...] = ()
        if compiled.files:
            uploads = await self._inputs.resolve(account, {one.value for one in compiled.files})
            sizes = {
                one.node_id: (uploads[one.value].width, uploads[one.value].height) for one in compiled.files
            }
            compiled, inputs = with_uploads(compiled, {name: one.id for name, one in uploads.items()})
            if isinstance(asked, GraphRequest):
                compiled = measured(compiled, sizes)
                _check_cost(compiled, account.limits)
        source = asked.source if isinstance(asked, GraphRequest) else None
        return NewJob(
            id=new_job_id(),
            account_id=account.id,
            requirement=compiled.requirement,
            graph=compiled.graph,
            params=compiled.params,
            options=_within(order.options, account.limits),
            images=compiled.images,
            cost=price(
                compiled.timing_key,
                compiled.requirement.primary,
                compiled.pixel_steps,
                self._pool.view.timings,
            ),
            timing_key=compiled.timing_key,
            queued_at=self._clock.now(),
            fingerprint=_fingerprint(order),
            idempotency_key=order.idempotency_key,
            batch_id=order.batch_id,
            batch_index=order.batch_index,
            limits=account.limits,
            workflow=None if source is None else (source.workflow_id, source.version),
            pixel_steps=compiled.pixel_steps,
            inputs=inputs,
        )

    async def _compiled(self, account: Account, asked: GenerationRequest | GraphRequest) -> Compiled:
        if isinstance(asked, GraphRequest):
            checked, source = await self._graphs.check(account, asked.document), asked.source
            if self._rules is not None:
                checked, source = await self._rules.graph(account, checked, source)
            is_open = self._graphs.rules_of(account).policy.is_open
            return compiled_graph(checked, source, known=bool(self._pool.view.inventories), is_open=is_open)
        if self._rules is not None:
            asked = await self._rules.generation(account, asked)
        compiled = compile_generation(
            asked,
            self._pool.view.catalogue,
            default_model=self._default_model,
            seed_source=self._seed_source,
        )
        self._check_servable(compiled)
        return compiled

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
        return Accepted(new.id, Status.QUEUED, new.queued_at, where, cost=Cost(new.pixel_steps, new.cost))


def _check_cost(compiled: Compiled, limits: Limits) -> None:
    """Raises `Refused` (COST_LIMIT_EXCEEDED)."""
    if limits.pixel_steps is not None and compiled.pixel_steps > limits.pixel_steps:
        raise Refused(
            Code.COST_LIMIT_EXCEEDED,
            "The job would take more work than your tier allows at once.",
            details={"pixel_steps": compiled.pixel_steps, "limit": limits.pixel_steps},
        )
    if limits.output_files is not None and compiled.images > limits.output_files:
        raise Refused(
            Code.COST_LIMIT_EXCEEDED,
            "The job would give more files than your tier allows.",
            details={"files": compiled.images, "limit": limits.output_files},
        )


def _fingerprint(order: Order) -> str:
    return hashlib.sha256(order.body).hexdigest()[:32]


def _within(options: JobOptions, limits: Limits) -> JobOptions:
    return options._replace(output=_limited(options.output, limits.output_files, limits.output_bytes))


@lru_cache(maxsize=256)
def _limited(output: OutputOptions, files: int | None, most_bytes: int | None) -> OutputOptions:
    return replace(output, files=files, bytes=most_bytes)


def refusal(
    outcome: KeyReused | QueueFull | WaitingFull | QuotaSpent | InputsGone, now: float
) -> ServiceError:
    """What the caller is told of a job that was not taken."""
    match outcome:
        case KeyReused():
            return Refused(Code.IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used with another request.")
        case InputsGone(upload_ids=gone):
            return Refused(
                Code.INVALID_INPUT,
                "An upload that the job needs has been deleted.",
                details={"errors": [{"input": one, "message": "There is no such upload."} for one in gone]},
            )
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
